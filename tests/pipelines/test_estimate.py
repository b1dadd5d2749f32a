"""Tests of the estimate of a pipeline's requests and costs before its run."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
from distilabel.pipeline import Pipeline, sample_n_steps
from distilabel.steps import EmbeddingGeneration, KeepColumns, LoadDataFromFileSystem
from distilabel.steps.tasks import EvolInstruct, TextGeneration, UltraFeedback
from typer.testing import CliRunner

from distilabel_openai_batch import (
    AzureOpenAIBatchLLM,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
    StreamBatchResults,
    SubmitBatch,
)
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.operations.estimate import estimate_pipeline

ROWS = 7


@pytest.fixture
def rows(tmp_path) -> str:
    """Write a file of rows that a YAML file can name."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Say number {i}."}) + "\n" for i in range(ROWS)))
    return str(path)


@pytest.fixture(autouse=True)
def no_server(monkeypatch, tmp_path):
    """Remove the keys, set an address that does not answer, and an empty ledger."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path / "ledger"))
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")


def llm(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(**{"model": "gpt-4o-mini", **fields})


def save_pipeline(pipeline: Pipeline, tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    pipeline.save(path, overwrite=True, format="yaml")
    return path


def load(rows: str) -> LoadDataFromFileSystem:
    return LoadDataFromFileSystem(name="load", data_files=rows, filetype="json")


def estimate(*arguments: object):
    ran = CliRunner().invoke(app, ["estimate", *map(str, arguments)])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran


def test_each_task_is_estimated_and_later_tasks_with_the_longest_answers_before(rows, tmp_path, monkeypatch):
    """The estimate has rows, requests, tokens and dollars of each Task."""
    pytest.importorskip("genai_prices")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1")
    with Pipeline(name="estimate") as pipeline:
        generate = TextGeneration(name="generate", llm=llm(), num_generations=2, group_generations=True)
        kept = KeepColumns(name="kept", columns=["instruction", "generation"])
        judge = UltraFeedback(name="judge", input_mappings={"generations": "generation"}, llm=llm(model="gpt-4o"))
        load(rows) >> generate >> kept >> judge
    path = save_pipeline(pipeline, tmp_path)

    ran = estimate(path)
    [_, first, second, _, *notes] = ran.stdout.splitlines()
    # Tokens in: 4 of text and 7 around the text. Tokens out: twice 128.
    assert first.split()[:8] == ["generate", "gpt-4o-mini", "7", "7", "0", "7", "~77", "≤"]
    assert first.split("≤ ")[1:] == ["1,792  ", "$0.0005   ", "$0.0011"]
    assert second.split()[:7] == ["judge", "gpt-4o", "7", "7", "0", "7", "≤"]
    assert "judge is behind generate: each of its prompts is counted with all answers" in " ".join(notes)

    estimated = json.loads(estimate(path, "--json").stdout)
    assert estimated["is_complete"] is True
    assert estimated["steps"][0]["usage"] == Usage(77, 1_792).counts()
    assert estimated["steps"][0]["cost"] == pytest.approx((77 * 0.075 + 1_792 * 0.3) / 1e6)
    judge = estimated["steps"][1]
    assert (judge["depends_on"], judge["behind"]) == ([], ["generate"])
    # Each of the 7 prompts has the text of UltraFeedback, and two answers of 128 tokens.
    assert 7 * 256 < judge["usage"]["tokens_in"] < 7 * 1_200
    assert estimated["total"]["cost"] == pytest.approx(estimated["steps"][0]["cost"] + judge["cost"])

    parameters = ["--param", "generate.llm.generation_kwargs.max_new_tokens=1", "--param", "generate.llm.sync_below=8"]
    estimated = json.loads(estimate(path, "--json", *parameters).stdout)
    assert estimated["steps"][0]["usage"]["tokens_out"] == 14
    assert estimated["steps"][0]["saved"] == 0


def test_requests_in_the_ledger_cost_nothing(rows, tmp_path, sandbox, monkeypatch):
    """The estimated requests equal those of the run, random parts included. The price of this server is unknown."""
    with Pipeline(name="known") as pipeline:
        start = load(rows)
        start >> TextGeneration(name="generate", llm=llm(min_poll_interval=0.02), input_batch_size=3)
        start >> EvolInstruct(name="evolve", llm=llm(min_poll_interval=0.02), num_evolutions=1)
    path = save_pipeline(pipeline, tmp_path)
    before = estimate_pipeline(path, {})
    assert [(estimated.step, estimated.rows, estimated.requests, estimated.known) for estimated in before] == [
        ("generate", 7, 7, 0),
        ("evolve", 7, 7, 0),
    ]
    assert len(sandbox.books().batches) == 0

    pipeline.run(use_cache=False)

    assert [(estimated.requests, estimated.known) for estimated in estimate_pipeline(path, {})] == [(7, 7), (7, 7)]
    ran = estimate(path)
    assert "Known requests are answered or in progress" in ran.stdout
    # No request costs no dollar on any server.
    assert all(line.split()[-5:] == ["0", "0", "0", "$0.00", "$0.00"] for line in ran.stdout.splitlines()[1:3])
    assert "are not known" not in ran.stdout
    more = estimate(path, "--param", "evolve.llm.generation_kwargs.max_new_tokens=9").stdout
    assert f"? The prices of {sandbox.base_url} are not known" in more
    [_, again] = estimate_pipeline(path, {"evolve": {"llm": {"generation_kwargs": {"max_new_tokens": 9}}}})
    assert (again.known, again.usage.tokens_out) == (0, 63)

    path.write_text(path.read_text().replace("name: known", "name: renamed"))
    assert [each.answers_elsewhere.name for each in estimate_pipeline(path, {})] == ["known/generate", "known/evolve"]
    reused = estimate_pipeline(path, {"generate": {"llm": {"reuse_from": "known"}}})
    assert [estimated.known for estimated in reused] == [7, 0]
    elsewhere = {"reuse_from": "known", "base_url": "http://elsewhere.example/v1"}
    assert [estimated.known for estimated in estimate_pipeline(path, {"generate": {"llm": elsewhere}})] == [7, 0]


def test_requests_of_later_rounds_are_counted(rows, tmp_path):
    """Later requests contain earlier answers, which may be long."""
    with Pipeline(name="rounds") as pipeline:
        load(rows) >> EvolInstruct(name="evolve", llm=llm(), num_evolutions=3)
    [estimated] = estimate_pipeline(save_pipeline(pipeline, tmp_path), {})
    assert (estimated.requests, estimated.asks_in_rounds) == (21, True)
    with Pipeline(name="rounds") as pipeline:
        load(rows) >> EvolInstruct(name="evolve", llm=llm(), num_evolutions=1)
    [one] = estimate_pipeline(save_pipeline(pipeline, tmp_path), {})
    assert (one.requests, one.asks_in_rounds) == (7, False)
    assert estimated.usage.tokens_in > one.usage.tokens_in + 14 * 128


def test_embeddings_azure_streams_and_submissions_are_estimated(rows, tmp_path, monkeypatch):
    with Pipeline(name="ways") as pipeline:
        start = load(rows)
        start >> EmbeddingGeneration(
            name="embed", input_mappings={"text": "instruction"}, embeddings=OpenAIBatchEmbeddings(model="mine")
        )
        start >> TextGeneration(name="azure", llm=AzureOpenAIBatchLLM(model="deployed"))
        start >> SubmitBatch(name="submit", task=TextGeneration(name="a", llm=llm()), run_name="run")
        StreamBatchResults(name="stream", task=TextGeneration(name="b", llm=llm()), data=rows)
    found = {estimated.step: estimated for estimated in estimate_pipeline(save_pipeline(pipeline, tmp_path), {})}
    assert set(found) == {"embed", "azure", "submit", "stream"}
    assert {(estimated.rows, estimated.requests) for estimated in found.values()} == {(7, 7)}
    assert found["embed"].usage.tokens_out == 0
    assert found["azure"].cost is None


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="distilabel cannot write `sample_n_steps` into a YAML there")
def test_estimate_of_a_routed_task_is_a_bound(rows, tmp_path):
    """The branch that a routing function chooses is unknown."""
    with Pipeline(name="parted") as pipeline:
        branches = [TextGeneration(name=name, llm=llm()) for name in ("left", "right")]
        load(rows) >> sample_n_steps(1) >> branches
    ran = estimate(save_pipeline(pipeline, tmp_path))
    assert "A routing function gives left only a part of these rows: the numbers are upper bounds." in ran.stdout


def test_names_that_distilabel_would_drop_are_refused(rows, tmp_path):
    """The error says where the name stands, and proposes the nearest name."""
    with Pipeline(name="misspelt") as pipeline:
        generate = TextGeneration(name="generate", llm=llm(budget=1), num_generations=2)
        load(rows) >> generate >> KeepColumns(name="kept", columns=["generation"])
    path = save_pipeline(pipeline, tmp_path)
    text = path.read_text()
    path.write_text(text.replace("budget: 1", "buget: 1").replace("num_generations: 2", "zyx: 2"))
    ran = estimate(path)
    assert ran.exit_code == 1
    assert "generate.llm: OpenAIBatchLLM has no field `buget`. Did you mean `budget`?" in ran.stderr
    assert "generate: TextGeneration has no field `zyx`.\n" in ran.stderr
    assert ran.stdout == ""

    path.write_text(text)
    parameters = {"generat.llm.budget=1": "generate", "generate.llm.max_job=1": "max_jobs", "kept.colums=1": None}
    for parameter, meant in parameters.items():
        ran = estimate(path, "--param", parameter)
        assert ran.exit_code == 1
        assert f"Did you mean `{meant}`?" in ran.stderr if meant else "has no runtime parameter `colums`." in ran.stderr


def test_budget_without_a_known_price_is_no_error(rows, tmp_path):
    """A user may ask for an estimate because the price is unknown."""
    with Pipeline(name="budget") as pipeline:
        load(rows) >> TextGeneration(name="generate", llm=llm(budget=1))
    [estimated] = estimate_pipeline(save_pipeline(pipeline, tmp_path), {})
    assert estimated.requests == 7


def test_pipeline_that_cannot_be_estimated_is_an_error(rows, tmp_path, monkeypatch):
    """A pipeline without a Batch API client is no error."""
    assert "cannot be loaded as a pipeline" in estimate(tmp_path / "none.yaml").stderr
    path = tmp_path / "odd.yaml"
    path.write_text("a: 1")
    assert "cannot be loaded as a pipeline" in estimate(path).stderr
    with Pipeline(name="nothing") as pipeline:
        load(rows) >> KeepColumns(name="kept", columns=["instruction"])
    path = save_pipeline(pipeline, tmp_path)
    assert estimate(path).stdout == "No step of the pipeline uses the Batch API.\n"
    assert estimate(path, "--param", "kept").exit_code == 2
    with Pipeline(name="failing") as pipeline:
        load(rows) >> KeepColumns(name="kept", columns=["instruction"]) >> TextGeneration(name="generate", llm=llm())
    path = save_pipeline(pipeline, tmp_path)

    def fail(self, *inputs):
        raise KeyError("instruction")

    monkeypatch.setattr(KeepColumns, "process_applying_mappings", fail)
    with pytest.raises(OpenAIBatchError, match=r"'kept' fails, so .*KeyError"):
        estimate_pipeline(path, {})


@pytest.mark.parametrize(
    ("kwargs", "on_truncated", "tokens_out", "is_warned"),
    [
        ({}, "keep", ROWS * 25_000, False),
        ({"max_new_tokens": 128}, "keep", ROWS * 128, True),
        # The limit is doubled three times.
        ({"max_new_tokens": 128}, "retry", ROWS * 128 * (1 + 2 + 4 + 8), True),
    ],
)
def test_models_that_reason_are_estimated_with_their_limit(rows, tmp_path, kwargs, on_truncated, tokens_out, is_warned):
    """A limit that reasoning probably spends has a note, also in a Task behind another Task."""
    with Pipeline(name="estimate") as pipeline:
        model = llm(model="gpt-6-luna", generation_kwargs=kwargs, on_truncated=on_truncated)
        first = TextGeneration(name="first", llm=model)
        second = TextGeneration(name="second", llm=llm(model="gpt-6-luna", generation_kwargs=kwargs))
        load(rows) >> first >> KeepColumns(name="kept", columns=["instruction"]) >> second
    path = save_pipeline(pipeline, tmp_path)

    [estimated, _] = estimate_pipeline(path, {})
    assert estimated.usage.tokens_out == tokens_out
    printed = " ".join(estimate(path).stdout.split())
    for step in ("first", "second"):
        assert (f"⚠️ {step}: `max_new_tokens=128` is probably too small for gpt-6-luna" in printed) is is_warned


def test_an_alias_that_is_known_to_reason_is_estimated_with_the_limit_of_a_run(rows, tmp_path):
    """A user's limit counts as set. Another scope of the server learned of the refusal."""
    with Pipeline(name="estimate") as pipeline:
        start = load(rows)
        for name, kwargs in (("default", {}), ("limited", {"max_new_tokens": 300})):
            start >> TextGeneration(name=name, llm=llm(model="alias", generation_kwargs=kwargs))
    path = save_pipeline(pipeline, tmp_path)
    assert [step.usage.tokens_out for step in estimate_pipeline(path, {})] == [ROWS * 128, ROWS * 300]

    with closing(Ledger(tmp_path / "ledger", ScopeName("other", "task", "http://127.0.0.1:9/v1/"))) as ledger:
        ledger.refused_parameters.record("alias", "max_tokens")
    assert [step.usage.tokens_out for step in estimate_pipeline(path, {})] == [ROWS * 25_000, ROWS * 300]


def test_a_task_behind_a_step_that_placeholder_answers_break_has_no_estimate(rows, tmp_path, monkeypatch):
    with Pipeline(name="unknown") as pipeline:
        kept = KeepColumns(name="kept", columns=["instruction"])
        load(rows) >> TextGeneration(name="first", llm=llm()) >> kept >> TextGeneration(name="second", llm=llm())
    path = save_pipeline(pipeline, tmp_path)

    def fail(self, *inputs):
        raise ValueError("… is no JSON")

    monkeypatch.setattr(KeepColumns, "process_applying_mappings", fail)
    first, second = estimate_pipeline(path, {})
    assert (first.requests, second.depends_on, second.usage) == (7, ("first",), None)
    assert "Not in the estimate: second, whose requests depend on the answers of first." in estimate(path).stdout


SCRIPT = """
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from distilabel_openai_batch import OpenAIBatchLLM

with Pipeline(name="script") as pipeline:
    rows = [{"instruction": "Why?"}] * 3
    LoadDataFromDicts(data=rows) >> TextGeneration(name="generate", llm=OpenAIBatchLLM(model="m"))
"""


@pytest.mark.parametrize(
    ("source", "more", "tokens_out"),
    [
        ("script.py", "", 384),
        ("script.py:pipeline", "other = Pipeline(name='other')", 384),
        ("script:make", "def make(): return pipeline", 384),
        # A script that runs its pipeline does not run it; the parameters of the call count.
        (
            "script.py",
            "limit = {'generation_kwargs': {'max_new_tokens': 5}}\n"
            "pipeline.run(parameters={'generate': {'llm': limit}})\nraise SystemExit",
            15,
        ),
    ],
    ids=["file", "attribute", "module", "script that runs"],
)
def test_a_pipeline_in_python_is_estimated(tmp_path, monkeypatch, source, more, tokens_out):
    (tmp_path / "script.py").write_text(f"{SCRIPT}\n{more}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "script", raising=False)
    original = Pipeline.run
    [estimated] = estimate_pipeline(source, {})
    assert (estimated.requests, estimated.usage.tokens_out) == (3, tokens_out)
    assert Pipeline.run is original
    monkeypatch.delitem(sys.modules, "script", raising=False)


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("script.py", f"{SCRIPT}\nother = Pipeline(name='other')", "has the pipelines .*: name one"),
        ("script.py", "a = 1", "has the pipelines none"),
        ("script.py:none", "a = 1", "has no attribute 'none'"),
        ("script.py", "1 +", "invalid syntax"),
        ("no.module:pipeline", "", "No module named 'no'"),
    ],
)
def test_python_without_one_pipeline_is_an_error(tmp_path, monkeypatch, source, content, message):
    (tmp_path / "script.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(OpenAIBatchError, match=message):
        estimate_pipeline(source, {})
    monkeypatch.delitem(sys.modules, "script", raising=False)
