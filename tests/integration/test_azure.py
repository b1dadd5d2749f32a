"""`AzureOpenAIBatchLLM` against the sandbox, which takes Azure's paths, key header and endpoints here, no others."""

from __future__ import annotations

import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import anyio
import pytest
from distilabel.models.llms import AzureOpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from openai import AzureOpenAI

from distilabel_openai_batch import (
    AuthenticationError,
    AzureOpenAIBatchLLM,
    BatchFailedError,
    OpenAIBatchLLM,
    RunError,
)
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.enqueue_limit import Room
from distilabel_openai_batch.engine.job_runner import Jobs
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.environment import API_KEY, in_a_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(8)]
DAY = 86_400.0


@pytest.fixture(autouse=True)
def azure(sandbox, monkeypatch, quick_retries):
    """The sandbox as an Azure OpenAI resource, and an environment that leads to it."""
    sandbox.reset(Settings(dialect="azure"))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", sandbox.base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    return sandbox


def ask(questions=QUESTIONS, **fields):
    """As a run of its own."""
    llm = AzureOpenAIBatchLLM(model="a-deployment", **{"min_poll_interval": 0.02, "max_poll_interval": 1.0, **fields})
    return [output["generations"] for output in in_a_new_process(llm).generate(questions)]


def answers():
    """What the deployment says when it is asked synchronously."""
    with AzureOpenAI() as client:
        return [
            [
                client.chat.completions.create(
                    model="a-deployment",
                    messages=question,
                    n=1,
                    max_tokens=128,
                    temperature=1.0,
                    top_p=1.0,
                    frequency_penalty=0.0,
                    presence_penalty=0.0,
                    logprobs=False,
                )
                .choices[0]
                .message.content
            ]
            for question in QUESTIONS
        ]


def test_a_deployment_answers_each_row(azure):
    """A request that fails is its own row's `None`; and a second run buys nothing, however one writes the endpoint."""
    expected = answers()
    expected[3] = [None]
    azure.configure(failures=[RequestFailure(contains="number 3.", message="Filtered.", code="content_filter")])

    assert ask() == expected
    assert len(azure.books().batches) == 1
    assert ask(base_url=azure.base_url.removesuffix("/v1") + "/", api_version="2025-04-01-preview") == expected
    assert sorted(azure.books().billed.values()) == [1] * 7


def test_another_machine_finds_the_jobs(azure, tmp_path):
    """As with OpenAI's server."""
    first = ask()
    assert ask(ledger_dir=str(tmp_path)) == first
    assert len(azure.books().batches) == 1


def test_no_batch_is_made_of_a_file_that_is_pending(azure):
    """It is looked at until it is processed: the sandbox refuses batches of a file before."""
    ask(QUESTIONS[:1])
    names = [call.name for call in azure.calls()]
    assert "files.retrieve" in names[names.index("files.create") : names.index("batches.create")]


def test_a_file_that_is_never_ready_is_an_error(azure, monkeypatch):
    """After a while, and it says which file and what its status is."""
    azure.configure(dialect=DIALECTS["azure"].model_copy(update={"pending_seconds": 3_600.0}))
    monkeypatch.setattr("distilabel_openai_batch.api.files._FILE_READY_SECONDS", 0.0)
    with pytest.raises(RunError, match=r"Input file file-.* is still pending"):
        ask()


@pytest.mark.parametrize("limit", [40, 60])
def test_a_token_limit_at_the_creation_is_waited_for_and_then_halved(azure, limit):
    """As one that is found later is: every row is answered, and none bought twice."""
    azure.configure(enqueued_token_limit=limit, in_progress_seconds=3_600.0)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, max_requests_per_job=5)
        while 400 not in [call.status for call in azure.calls("batches.create")] and not asked.done():
            time.sleep(0.01)
        # Nothing ends, and makes room, before one was refused.
        azure.configure(in_progress_seconds=0.0)
        assert asked.result() == answers()
    assert set(azure.books().billed.values()) == {1}
    assert 400 in [call.status for call in azure.calls("batches.create")]


def test_a_request_above_the_token_limit_is_an_error(azure):
    """In Azure's words."""
    azure.configure(enqueued_token_limit=1)
    with pytest.raises(RunError, match="Limit: 1 enqueued tokens") as raised:
        ask(QUESTIONS[:2])
    assert raised.value.code == "token_limit_exceeded"


REFUSALS = {
    "url_mismatch": "The URL does not match.",
    "too_many_tasks": "The number of requests exceeds 100,000.",
    "empty_file": "The input file is empty.",
    "model_mismatch": "The deployments differ.",
    "model_not_found": "There is no such deployment.",
    "invalid_request": "The SKU of the deployment is not one for batches.",
}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("done", [{}, {"done": 0}], ids=["without files", "with files that hold no answer"])
def test_what_azure_refuses_is_an_error_of_the_run(azure, code, done):
    """With its code and its words; ids of files, which Azure shows also then, do not hide it."""
    azure.add_fault(BatchFault(kind="fail", value={"code": code, "message": REFUSALS[code], **done}))
    with pytest.raises(BatchFailedError, match=REFUSALS[code]) as raised:
        ask()
    assert raised.value.code == code


def test_what_a_failed_batch_answered_is_used(azure, caplog):
    """Only the rest is asked again; the log says why it failed. Its counts are null then."""
    azure.add_fault(
        BatchFault(kind="fail", value={"code": "server_error", "message": "The engine is gone.", "done": 5})
    )
    azure.add_fault(BatchFault(kind="null_counts"))

    assert ask() == answers()
    assert sorted(azure.books().billed.values()) == [1] * 8
    assert "ended as failed: server_error: The engine is gone.; what it answered is used" in caplog.text


def test_a_wrong_key_is_said_and_never_shown(azure, caplog):
    """By Azure's header."""
    azure.configure(api_keys=["another"])
    with pytest.raises(AuthenticationError) as raised:
        ask()
    assert API_KEY not in str(raised.value) + caplog.text


class LateServer:
    """A batch whose window closed long ago, and that is not over until it has been looked at some times."""

    def __init__(self) -> None:
        self.looks = 3
        self.cancelled = False
        self.files = self

    async def retrieve(self, batch_id: str) -> Batch:
        self.looks -= 1
        created = time.time() - 3 * DAY
        ended = self.cancelled or not self.looks
        return Batch(
            batch_id,
            "completed" if ended else "in_progress",
            output_file_id="file-out" if ended else None,
            created_at=created,
            expires_at=created + DAY,
        )

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        return {batch_id: await self.retrieve(batch_id) for batch_id in batch_ids}

    async def cancel(self, batch_id: str) -> None:
        self.cancelled = True

    async def download(self, file_id, path, *, is_new):
        path.write_bytes(b"")


@pytest.mark.parametrize("llm_class", [OpenAIBatchLLM, AzureOpenAIBatchLLM])
def test_a_job_that_takes_longer_than_a_day_goes_on_at_azure(llm_class, tmp_path):
    """OpenAI ends it when its window closes, and cancels one that is left; Azure works on, and has it paid for."""
    llm = llm_class(model="m", base_url="http://127.0.0.1:9", api_key="sk-secret")
    settings = replace(llm.session_settings().jobs, schedule=PollSchedule(0.001, 0.001))
    server = LateServer()
    ledger = Ledger(tmp_path / "ledger", ScopeName("pipeline", "task", "http://127.0.0.1:9"))
    job, _ = ledger.jobs.plan(Shard([Request(f"{0:032x}-0", "/chat/completions", "m", b"{}")], 9))
    job = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch("batch_0", "validating"))
    jobs = Jobs(
        server, ledger, settings, tmp_path, Progress(logging.getLogger("jobs")), Room(settings.schedule, 50_000)
    )

    anyio.run(jobs.run, replace(job, intended_at=time.time() - 3 * DAY), lambda outcomes: None)

    assert server.cancelled is (llm_class is OpenAIBatchLLM)
    assert ledger.jobs.get(job.id).state is JobState.COLLECTED
    ledger.close()


@pytest.mark.parametrize(
    ("window", "binds", "shown", "seconds"),
    [
        ("24h", True, {"created_at": 10.0, "expires_at": 110.0}, 100.0),
        ("24h", True, {}, DAY),
        ("336h", True, {}, 14 * DAY),
        ("7d", True, {"created_at": 10.0}, 7 * DAY),
        ("a while", True, {}, math.inf),
        ("24h", False, {}, math.inf),
        ("24h", False, {"created_at": 10.0, "expires_at": 110.0}, math.inf),
    ],
)
def test_a_job_should_be_over_when_its_window_closes(window, binds, shown, seconds):
    """As the server says, else as was asked for; never where it does not bind or nobody knows."""
    settings = JobSettings(window, PollSchedule(), {}, window_binds=binds)
    assert settings.window_seconds(Batch("batch_0", "in_progress", **shown)) == seconds


@pytest.mark.parametrize("name", ["AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION"])
def test_what_is_missing_is_an_error_that_names_it(monkeypatch, name):
    """Before anything is sent."""
    monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=name):
        AzureOpenAIBatchLLM(model="a-deployment").load()


def test_everything_azureopenaillm_takes_is_taken():
    """A drop-in: the same fields with the same defaults from the same environment, all settable at run time."""
    ours, theirs = AzureOpenAIBatchLLM(model="a-deployment"), AzureOpenAILLM(model="a-deployment")
    assert theirs.model_dump() == ours.model_dump(include=set(AzureOpenAILLM.model_fields))
    assert isinstance(ours, OpenAIBatchLLM)
    described = {info["name"]: info.get("description") for info in ours.get_runtime_parameters_info()}
    assert all(described[name] for name in ("base_url", "api_key", "api_version"))


def test_azures_limits_are_the_defaults():
    """100,000 requests a job, and no look sooner than a minute after the last."""
    llm = AzureOpenAIBatchLLM(model="a-deployment")
    schedule = llm.session_settings().jobs.schedule
    assert llm.max_requests_per_job == 100_000
    assert [schedule.interval(age) for age in (0.0, 60.0, DAY)] == [60.0, 60.0, 65.0]


def test_a_pipeline_from_yaml(azure, tmp_path):
    """The class is found where it always will be, no key is written, and each row has its answer."""
    rows = [{"instruction": f"Say number {i}."} for i in range(3)]
    path = tmp_path / "pipeline.yaml"
    with Pipeline(name="azure", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(name="load", data=rows)
        load >> TextGeneration(name="generate", llm=AzureOpenAIBatchLLM(model="a-deployment", min_poll_interval=0.1))
    pipeline.save(path, format="yaml")
    assert API_KEY not in path.read_text()
    assert "module: distilabel_openai_batch\n" in path.read_text()

    loaded = Pipeline.from_yaml(path)
    # Rows are not written into YAML.
    loaded.dag.get_step("load")["step"].data = rows
    distiset = loaded.run(use_cache=False)

    assert [row["generation"] for row in distiset["default"]["train"]] == [text for [text] in answers()[:3]]
    assert len(azure.books().batches) == 1


def test_what_is_to_be_answered_at_once_goes_to_the_deployment(sandbox):
    """Under the path that the SDK gives a synchronous call; the answers are those of a job."""
    at_once = ask(sync_below=100)
    books = sandbox.books()
    assert (books.sync, books.batches) == (len(QUESTIONS), [])
    assert at_once == answers()
