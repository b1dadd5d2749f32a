"""A whole pipeline in a terminal: bars while it runs, a summary at its end, and a log that works afterwards."""

from __future__ import annotations

import json
import logging
import sys

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, __version__
from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME
from distilabel_openai_batch.hooks.dataset_card import ARTIFACT, BATCHES_FILE
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.terminal import Terminal, screen, strip_escapes

ROWS = [{"instruction": f"Say number {number}."} for number in range(6)]


def llm() -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)


def two_tasks(cache_dir) -> Pipeline:
    with Pipeline(name="shown", cache_dir=cache_dir) as pipeline:
        generate = TextGeneration(name="generate", llm=llm())
        judge = TextGeneration(
            name="judge",
            llm=llm(),
            system_prompt="Judge this answer.",
            input_mappings={"instruction": "generation"},
            output_mappings={"generation": "verdict", "model_name": "judged_by"},
        )
        LoadDataFromDicts(data=ROWS) >> generate >> judge
    return pipeline


def check_origin(distiset, batch_ids) -> None:
    """Check that the dataset's card and artifacts name the batches, the failures and this package."""
    card = str(distiset._get_card("shown"))
    assert all(batch_id in card for batch_id in batch_ids)
    assert "`failures by reason`: 1 × 400 invalid_prompt" in card
    assert f"`made by`: distilabel-openai-batch {__version__}" in card
    files = [distiset.artifacts_path / name / ARTIFACT / BATCHES_FILE for name in ("generate", "judge")]
    batches = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert [batch["batch_id"] for listed in batches for batch in listed] == batch_ids


def test_a_pipeline_in_a_terminal_shows_its_tasks_and_ends_with_a_summary(sandbox, tmp_path, monkeypatch, capfd):
    """The numbers come from the processes of the steps; afterwards another call of the process logs as before."""
    failure = RequestFailure(contains="Judge this", status=400, message="Odd.", code="invalid_prompt", times=1)
    sandbox.configure(in_progress_seconds=1.0, failures=[failure])
    for name in ("CI", PROGRESS_ENV_NAME):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    # Bars of another test on rich's common console would have the terminal.
    monkeypatch.setattr("rich._console", None)
    terminal = Terminal()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal.file)
        distiset = two_tasks(tmp_path).run(use_cache=False)
    written = terminal.close()

    assert len(distiset["default"]["train"]) == 6
    check_origin(distiset, [batch["id"] for batch in sandbox.books().batches])
    drawn = strip_escapes(written)
    assert "judge" in drawn
    assert "all Tasks" in drawn
    lines = screen(written)
    assert not [line for line in lines if "━" in line]
    place = lines.index("shown: 6 rows in, 6 in the dataset")
    generate, judge, total = (" ".join(line.split()) for line in lines[place + 2 : place + 5])
    assert generate.startswith("generate 6 → 6 6/6 0 1 ")
    assert judge.startswith("judge 6 → 6 5/6 1 1 ")
    assert total.startswith("all 11/12 1 2 ")
    assert "Failed in judge: 1 × 400 invalid_prompt" in lines
    assert [line for line in lines if line.startswith(f"Dataset: {tmp_path}")]
    assert [line for line in lines if line.startswith("Next: distilabel-openai-batch failures ")]

    assert (root.handlers, root.level) == before
    sandbox.configure(in_progress_seconds=0.0)
    script = llm()
    script.load()
    script.generate([[{"role": "user", "content": "Say hello."}]])
    assert "Logging error" not in capfd.readouterr().err
