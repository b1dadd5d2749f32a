"""`AzureOpenAIBatchLLM` against the sandbox, which here accepts only Azure's paths, key header and endpoints."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import anyio
import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from openai import AzureOpenAI

from distilabel_openai_batch import (
    AuthenticationError,
    AzureOpenAIBatchLLM,
    BatchFailedError,
    InvalidSettingError,
    MissingSettingError,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
    RunError,
)
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.engine.enqueue_limit import EnqueueLimit
from distilabel_openai_batch.engine.job_context import JobContext
from distilabel_openai_batch.engine.job_runner import JobRunner
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.running_jobs import RunningJobs
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.commands import run_command
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(8)]
DAY = 86_400.0


@pytest.fixture(autouse=True)
def azure(sandbox, monkeypatch, quick_retries):
    """Make the sandbox an Azure OpenAI resource, and point the environment to the resource."""
    sandbox.reset(Settings(dialect="azure"))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", sandbox.base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    return sandbox


def generate_in_new_process(questions=QUESTIONS, **fields):
    """Return the generations that a new process gets."""
    llm = AzureOpenAIBatchLLM(model="a-deployment", **{"min_poll_interval": 0.02, "max_poll_interval": 1.0, **fields})
    return [output["generations"] for output in load_as_new_process(llm).generate(questions)]


def synchronous_answers():
    """Return the generations that the deployment gives at the synchronous endpoint."""
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


def test_deployment_answers_each_row(azure):
    """A failed request is `None` in its row. A second run, with a slash after the endpoint, submits nothing."""
    expected = synchronous_answers()
    expected[3] = [None]
    azure.configure(failures=[RequestFailure(contains="number 3.", message="Filtered.", code="content_filter")])

    assert generate_in_new_process() == expected
    assert len(azure.books().batches) == 1
    assert (
        generate_in_new_process(base_url=azure.base_url.removesuffix("/v1") + "/", api_version="2025-04-01-preview")
        == expected
    )
    assert sorted(azure.books().billed.values()) == [1] * 7


def test_another_machine_finds_the_jobs(azure, tmp_path):
    """An empty ledger stands for the other machine."""
    first = generate_in_new_process()
    assert generate_in_new_process(ledger_dir=str(tmp_path)) == first
    assert len(azure.books().batches) == 1


def test_batch_is_created_after_its_file_is_processed(azure):
    """The file's status is polled first: the sandbox refuses a batch of a pending file."""
    generate_in_new_process(QUESTIONS[:1])
    names = [call.name for call in azure.calls()]
    assert "files.retrieve" in names[names.index("files.create") : names.index("batches.create")]


def test_file_that_stays_pending_is_an_error(azure, monkeypatch):
    """The error has the file's id and status."""
    azure.configure(dialect=DIALECTS["azure"].model_copy(update={"pending_seconds": 3_600.0}))
    monkeypatch.setattr("distilabel_openai_batch.api.files._FILE_READY_SECONDS", 0.0)
    with pytest.raises(RunError, match=r"Input file file-.* is still pending"):
        generate_in_new_process()


@pytest.mark.parametrize("limit", [40, 60])
def test_job_above_the_token_limit_waits_and_is_then_halved(azure, limit):
    """Azure rejects such a job when the batch is created. Every row is answered, and no request billed twice."""
    azure.configure(enqueued_token_limit=limit, in_progress_seconds=3_600.0)

    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(generate_in_new_process, max_requests_per_job=5)
        while 400 not in [call.status for call in azure.calls("batches.create")] and not answering.done():
            time.sleep(0.01)
        # No batch ends, and frees tokens, before another was rejected.
        azure.configure(in_progress_seconds=0.0)
        assert answering.result() == synchronous_answers()
    assert set(azure.books().billed.values()) == {1}
    assert 400 in [call.status for call in azure.calls("batches.create")]


def test_request_above_the_token_limit_is_an_error(azure):
    """The error has Azure's words and code."""
    azure.configure(enqueued_token_limit=1)
    with pytest.raises(RunError, match="Limit: 1 enqueued tokens") as raised:
        generate_in_new_process(QUESTIONS[:2])
    assert raised.value.code == "token_limit_exceeded"


REJECTIONS = {
    "url_mismatch": "The URL does not match.",
    "too_many_tasks": "The number of requests exceeds 100,000.",
    "empty_file": "The input file is empty.",
    "model_mismatch": "The deployments differ.",
    "model_not_found": "There is no such deployment.",
    "invalid_request": "The SKU of the deployment is not one for batches.",
}


@pytest.mark.parametrize("code", REJECTIONS)
@pytest.mark.parametrize("done", [{}, {"done": 0}], ids=["without files", "with files that hold no answer"])
def test_rejected_batch_is_an_error_of_the_run(azure, code, done):
    """The error has Azure's code and words, also where the batch has ids of empty result files."""
    azure.add_fault(BatchFault(kind="fail", value={"code": code, "message": REJECTIONS[code], **done}))
    with pytest.raises(BatchFailedError, match=REJECTIONS[code]) as raised:
        generate_in_new_process()
    assert raised.value.code == code


def test_partial_results_of_a_failed_batch_are_kept(azure, caplog):
    """Only the other requests are submitted again, and the log has the error. Azure then sends null for the counts."""
    azure.add_fault(
        BatchFault(kind="fail", value={"code": "server_error", "message": "The engine is gone.", "done": 5})
    )
    azure.add_fault(BatchFault(kind="null_counts"))

    assert generate_in_new_process() == synchronous_answers()
    assert sorted(azure.books().billed.values()) == [1] * 8
    assert "ended as failed: server_error: The engine is gone.; partial results are kept" in caplog.text


def test_error_about_a_wrong_key_does_not_show_the_key(azure, caplog):
    azure.configure(api_keys=["another"])
    with pytest.raises(AuthenticationError) as raised:
        generate_in_new_process()
    assert API_KEY not in str(raised.value) + caplog.text


class LateServer:
    """Server with a batch whose window closed two days ago, and which ends at the third poll."""

    def __init__(self) -> None:
        self.polls_left = 3
        self.cancelled = False
        self.files = self

    async def retrieve(self, batch_id: str) -> Batch:
        self.polls_left -= 1
        created = time.time() - 3 * DAY
        ended = self.cancelled or not self.polls_left
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

    async def wait_for_output_file(self, batch):
        return batch

    async def download(self, file_id, path, limit, *, is_new):
        path.write_bytes(b"")


@pytest.mark.parametrize("llm_class", [OpenAIBatchLLM, AzureOpenAIBatchLLM])
def test_job_longer_than_its_window_goes_on_with_azure_only(llm_class, tmp_path):
    """OpenAI ends a job when its window closes, so a leftover is cancelled; Azure works on, and bills the answers."""
    llm = llm_class(model="m", base_url="http://127.0.0.1:9", api_key="sk-secret")
    settings = replace(llm.session_settings().jobs, schedule=PollSchedule(0.001, 0.001))
    server = LateServer()
    ledger = Ledger(tmp_path / "ledger", ScopeName("pipeline", "task", "http://127.0.0.1:9"))
    job, _ = ledger.jobs.plan(Shard([Request(f"{0:032x}-0", "/chat/completions", "m", b"{}")], 9))
    job = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-in"), Batch("batch_0", "validating"))
    limit = EnqueueLimit(settings.schedule, 50_000)
    runner = JobRunner(JobContext(server, ledger, settings, tmp_path, Observer(), AnswerSizes()), limit, RunningJobs())

    anyio.run(runner.resume, replace(job, intended_at=time.time() - 3 * DAY), lambda outcomes: None)

    assert server.cancelled is (llm_class is OpenAIBatchLLM)
    assert ledger.jobs.get(job.id).state is JobState.COLLECTED
    ledger.close()


def test_pipeline_runs_from_yaml(azure, tmp_path):
    """The YAML names the package as the class's module and holds no key; each row has its answer."""
    rows = [{"instruction": f"Say number {i}."} for i in range(3)]
    path = tmp_path / "pipeline.yaml"
    with Pipeline(name="azure", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(name="load", data=rows)
        load >> TextGeneration(name="generate", llm=AzureOpenAIBatchLLM(model="a-deployment", min_poll_interval=0.1))
    pipeline.save(path, format="yaml")
    assert API_KEY not in path.read_text()
    assert "module: distilabel_openai_batch\n" in path.read_text()

    loaded = Pipeline.from_yaml(path)
    # YAML holds no rows → set them again.
    loaded.dag.get_step("load")["step"].data = rows
    distiset = loaded.run(use_cache=False)

    assert [row["generation"] for row in distiset["default"]["train"]] == [text for [text] in synchronous_answers()[:3]]
    assert len(azure.books().batches) == 1


def test_synchronous_requests_go_to_the_deployment(sandbox):
    """The path is the SDK's path of a synchronous call, and the answers equal those of a job."""
    generations = generate_in_new_process(sync_below=100)
    books = sandbox.books()
    assert (books.sync, books.batches) == (len(QUESTIONS), [])
    assert generations == synchronous_answers()


# Addresses and tokens

TOKENS = [f"eyJ{'a' * 20}.{'b' * 20}.{number}" for number in (1, 2)]


class Tokens:
    """Provider of the token that is valid now."""

    def __init__(self) -> None:
        self.token = TOKENS[0]

    def __call__(self) -> str:
        return self.token


def pasted_addresses(root: str) -> dict[str, tuple[str, str]]:
    """Return the dialect and the address of each form."""
    return {
        "resource": ("azure", root),
        "target URI": ("azure", f"{root}/openai/deployments/a-deployment/chat/completions?api-version=2024-10-21"),
        "newer API": ("azure-v1", f"{root}/openai/v1/"),
        "target URI of the newer API": ("azure-v1", f"{root}/openai/v1/chat/completions"),
    }


@pytest.mark.parametrize("form", pasted_addresses(""))
@pytest.mark.parametrize("has_key", [True, False], ids=["key", "token"])
def test_each_pasted_address_works_with_a_key_and_with_a_token(azure, monkeypatch, form, has_key):
    dialect, address = pasted_addresses(azure.base_url.removesuffix("/v1"))[form]
    azure.reset(Settings(dialect=dialect, api_keys=[API_KEY if has_key else TOKENS[0]]))
    if form != "resource":
        monkeypatch.delenv("OPENAI_API_VERSION")
    if not has_key:
        monkeypatch.delenv("AZURE_OPENAI_API_KEY")
        monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKENS[0])
    assert None not in [generations[0] for generations in generate_in_new_process(base_url=address)]
    assert len(azure.books().batches) == 1


def test_a_token_that_expires_during_a_job_is_renewed(azure, monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    tokens = Tokens()
    azure.reset(Settings(dialect="azure", api_keys=TOKENS[:1], in_progress_seconds=3_600.0))
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(generate_in_new_process, azure_ad_token_provider=tokens, max_poll_interval=0.1)
        while not azure.books().batches and not answering.done():
            time.sleep(0.01)
        tokens.token = TOKENS[1]
        azure.configure(api_keys=TOKENS[1:], in_progress_seconds=0.0)
        assert None not in [generations[0] for generations in answering.result()]
    assert len(azure.books().batches) == 1


def test_an_address_of_another_deployment_is_an_error(azure):
    address = azure.base_url.replace("/v1", "/openai/deployments/another/chat/completions?api-version=1")
    with pytest.raises(InvalidSettingError, match='Write `model="another"`, or the address of the resource alone'):
        generate_in_new_process(base_url=address)
    assert azure.calls() == []


def test_without_key_and_token_the_error_names_each_way(azure, monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(MissingSettingError, match=r"AZURE_OPENAI_API_KEY.*extra `azure`.*AZURE_OPENAI_AD_TOKEN"):
        generate_in_new_process()


def test_the_command_line_uses_a_token(azure, monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKENS[0])
    azure.reset(Settings(dialect="azure", api_keys=TOKENS[:1], in_progress_seconds=3_600.0))
    with pytest.raises(Exception, match="batch_"):
        generate_in_new_process(wait=False)
    assert run_command("jobs", "--look").exit_code == 0
    output = run_command("doctor").output
    assert "✓ key: Tokens of Microsoft Entra ID, from AZURE_OPENAI_AD_TOKEN." in output
    assert "✓ batches" in output


def test_the_log_says_once_when_the_first_poll_is_due(azure, caplog, monkeypatch):
    monkeypatch.setattr("distilabel_openai_batch.display.job_log._LONG_PAUSE_SECONDS", 0.5)
    azure.configure(in_progress_seconds=3_600.0)
    caplog.set_level("INFO")
    with pytest.raises(Exception, match="batch_"):
        generate_in_new_process(wait=False)
    assert "next poll is due" not in caplog.text
    assert generate_in_new_process(min_poll_interval=1.0, deadline=0.2)
    assert caplog.text.count("⏱️ The server is polled every 1 s") == 1


@pytest.mark.parametrize("host", ["mine.openai.azure.com", "mine.cognitiveservices.azure.com"])
def test_no_class_cancels_a_job_on_azure_when_its_window_closes(host):
    for model in (OpenAIBatchLLM, OpenAIBatchEmbeddings):
        client = model(model="a-deployment", base_url=f"https://{host}/openai/v1/", api_key="sk-unused")
        assert not client.session_settings().jobs.window_binds
    assert OpenAIBatchLLM(model="m", base_url="https://api.openai.com/v1").session_settings().jobs.window_binds
