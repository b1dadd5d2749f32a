"""`BatchClient`: settings from fields, sessions per event loop, and waiting inside and outside an event loop."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import pickle
import random
import threading
from dataclasses import replace
from types import GenericAlias

import anyio
import greenback
import pytest
from distilabel.constants import PIPELINE_NAME_ENV_NAME, SIGINT_HANDLER_CALLED_ENV_NAME
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.utils.typing_ import extract_annotation_inner_type
from pydantic import ValidationError

from distilabel_openai_batch import (
    AzureOpenAIBatchLLM,
    BudgetError,
    MissingSettingError,
    Observer,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
)
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.retention import Retention
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.display import advice
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.deadlines import Deadline
from distilabel_openai_batch.engine.lanes import LaneSettings
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings, SubmissionRun
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.plugin import base
from distilabel_openai_batch.pricing.price_book import PriceBook
from tests.unit.plugin.stubs import CONNECTION, MESSAGES, batch_llm, completion

LOADING = SubmissionRun("numbers", waits=True, submits=False)
SUBMITTING = SubmissionRun("numbers", waits=False, submits=True)


def client(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(**CONNECTION, **fields)


# long: each field once, as given and as settings
def test_session_settings_come_from_the_fields(tmp_path):
    settings = client(
        completion_window="48h",
        max_requests_per_job=10,
        max_bytes_per_job=1_000,
        max_jobs=3,
        max_attempts=2,
        min_poll_interval=0.5,
        max_poll_interval=9.0,
        wait=False,
        reuse_answers=False,
        delete_files=True,
        deadline=60.0,
        sync_below=5,
        lane="auto",
        flex_below=7,
        flex_fallback=True,
        supports_flex=False,
        max_concurrency=9,
        preflight=True,
        input_expires_after=3_600,
        output_expires_after=7_200,
        on_truncated="fail",
        ledger_dir=str(tmp_path),
        timeout=7,
        max_retries=4,
        default_headers={"X-Team": "data"},
    ).session_settings()

    assert settings == SessionSettings(
        base_url="http://127.0.0.1:9/v1",
        api_key="sk-secret",
        headers={"X-Team": "data"},
        timeout=7,
        patience=Patience(retries=4),
        max_requests=10,
        max_bytes=1_000,
        max_attempts=2,
        max_jobs=3,
        jobs=JobSettings(
            completion_window="48h",
            schedule=PollSchedule(0.5, 9.0),
            metadata={"description": "distilabel"},
            wait=False,
            delete_files=True,
        ),
        ledger_dir=tmp_path,
        reuse_answers=False,
        deadline=Deadline(seconds=60.0),
        lanes=LaneSettings("auto", 5, flex_below=7, flex_fallback=True, supports_flex=False, max_concurrency=9),
        preflight=True,
        retention=Retention(3_600, 7_200),
        on_truncated="fail",
    )


def test_session_settings_hide_the_key():
    assert "sk-secret" not in repr(client().session_settings())


def test_batches_carry_the_name_of_the_pipeline(monkeypatch):
    """The server's limit for a value of the metadata is 512 characters."""
    monkeypatch.setenv(PIPELINE_NAME_ENV_NAME, "n" * 600)

    metadata = client().session_settings().jobs.metadata

    assert metadata == {"description": "distilabel", "distilabel_pipeline_name": "n" * 512}


@pytest.mark.parametrize("run", [LOADING, SUBMITTING])
def test_submission_decides_about_waiting_and_reuse(run):
    llm = client(wait=not run.waits, reuse_answers=False, sync_below=5, lane="flex")
    llm.join_submission(run)

    settings = llm.session_settings()

    assert (settings.run, settings.jobs.wait, settings.reuse_answers) == (run, run.waits, True)
    assert settings.lanes == LaneSettings("flex" if run.waits else "batch", 5 if run.waits else 0)


@pytest.mark.parametrize(("run", "sync_below"), [(None, math.inf), (LOADING, math.inf), (SUBMITTING, 0)])
def test_dry_run_is_synchronous_except_in_a_submission(monkeypatch, run, sync_below):
    monkeypatch.setattr(base, "is_dry_run", lambda: True)
    llm = client()
    if run:
        llm.join_submission(run)

    assert llm.session_settings().lanes.sync_below == sync_below


def test_scope_is_named_after_the_submission_the_step_or_the_script(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/script.py"])
    assert base._scope_name(None, "url") == ScopeName("script.py", "", "url")

    monkeypatch.setenv(PIPELINE_NAME_ENV_NAME, "pipeline")
    monkeypatch.setattr(base, "running_step", lambda: "generate")
    assert base._scope_name(None, "url") == ScopeName("pipeline", "generate", "url")
    assert base._scope_name(SUBMITTING, "url") == ScopeName("numbers", "", "url")


@pytest.mark.parametrize(
    ("run", "task", "has_bars"), [(None, "", True), (None, "generate", False), (SUBMITTING, "", False)]
)
def test_bars_are_drawn_outside_a_pipeline_only(monkeypatch, run, task, has_bars):
    displays = []
    monkeypatch.setattr(base, "choose_display", lambda logger: displays.append(logger))

    base._progress(logging.getLogger("test"), run, ScopeName("name", task, "url"), PriceBook("url"), advice.RUN_AGAIN)

    assert bool(displays) is has_bars


class Scopes(Observer):
    """Observer that records its scope."""

    def __init__(self, scope):
        self.scope = scope

    def on_finished(self):
        finished_scopes.append(self.scope)


class WithoutScope(Observer):
    """Observer whose constructor takes no argument."""


finished_scopes = []
SCOPE = ScopeName("pipeline", "task", "url")
COPIES = {
    "itself": lambda llm: llm,
    "pickle": lambda llm: pickle.loads(pickle.dumps(llm)),
    "deep copy": copy.deepcopy,
    "shallow model copy": lambda llm: llm.model_copy(),
    "deep model copy": lambda llm: llm.model_copy(deep=True),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("client_class", [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings])
def test_added_observers_stay_in_copies_of_a_client(client_class, copied):
    """distilabel copies and pickles each step on the way to its process."""
    azure = {"api_version": "2024-10-21"} if client_class is AzureOpenAIBatchLLM else {}
    llm = client_class(**CONNECTION, **azure)
    llm.add_observer(Scopes)
    llm.add_observer(Scopes)
    finished_scopes.clear()

    copied(llm)._session_observer(SCOPE).on_finished()

    assert finished_scopes == [SCOPE, SCOPE]


def test_an_observer_of_a_copy_is_no_observer_of_the_original():
    llm = client()
    llm.model_copy().add_observer(Scopes)
    assert type(llm._session_observer(SCOPE)) is Progress


def test_added_observers_are_not_dumped():
    """YAML files and the signature of a pipeline stay the same."""
    llm = client()
    llm.add_observer(Scopes)
    assert llm.dump() == client().dump()


@pytest.mark.parametrize(
    ("factory", "message"),
    [(Scopes(SCOPE), "not a callable object"), (WithoutScope, "too many positional arguments")],
)
def test_a_factory_takes_the_scope(factory, message):
    with pytest.raises(TypeError, match=f"add_observer takes a function or a class.*{message}"):
        client().add_observer(factory)


@pytest.mark.parametrize(
    ("run", "way"),
    [
        (None, advice.RUN_AGAIN),
        (SUBMITTING, advice.SUBMIT_AGAIN),
        (LOADING, advice.LOAD_WITH_RESUBMIT),
        (replace(LOADING, submits=True), advice.LOAD_AGAIN),
    ],
)
def test_advice_on_a_retry_depends_on_the_submission(run, way):
    assert base._retry_way(run) is way


@pytest.mark.parametrize(
    "field",
    ["max_requests_per_job", "max_bytes_per_job", "max_jobs", "max_attempts", "min_poll_interval", "max_poll_interval"],
)
@pytest.mark.parametrize("value", [0, -1, math.nan, "many", None])
def test_limit_must_be_positive(field, value):
    with pytest.raises(ValidationError, match=field):
        client(**{field: value})


@pytest.mark.parametrize(
    "field", ["completion_window", "wait", "reuse_answers", "delete_files", "sync_below", "preflight", "add_failures"]
)
def test_field_with_a_default_refuses_none(field):
    with pytest.raises(ValidationError, match="the value cannot be None"):
        client(**{field: None})


@pytest.mark.parametrize("client_class", [OpenAIBatchLLM, OpenAIBatchEmbeddings])
@pytest.mark.parametrize("fields", [{}, {"api_key": ""}], ids=["missing", "empty"])
def test_missing_key_is_an_error_that_names_the_variable(monkeypatch, client_class, fields):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(MissingSettingError, match="export OPENAI_API_KEY") as raised:
        client_class(model="a-model", **fields).load()

    assert isinstance(raised.value, ValueError)


def test_base_url_comes_from_the_field_or_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8/v1")

    assert OpenAIBatchLLM(model="m", api_key="k").session_settings().base_url == "http://127.0.0.1:8/v1"
    assert client().session_settings().base_url == "http://127.0.0.1:9/v1"


def test_budget_needs_a_price():
    """The local server has none; a client that only collects results needs none."""
    llm = client(budget=1.0)
    with pytest.raises(BudgetError):
        llm.load()

    llm.join_submission(LOADING)
    llm.load()


def test_calls_of_one_event_loop_share_a_session(tmp_path):
    """Another event loop gets another session, and so does a later call."""
    llm = client(ledger_dir=str(tmp_path))
    llm.load()

    async def two_sessions():
        async with llm.session() as first, llm.session() as second:
            return first, second

    first, second = asyncio.run(two_sessions())
    third, _ = asyncio.run(two_sessions())

    assert first is second
    assert third is not first


def test_session_before_load_is_refused():
    with pytest.raises(AssertionError, match="`load` comes first"):
        client().session()


def test_unload_releases_the_sessions(tmp_path):
    llm = client(ledger_dir=str(tmp_path))
    llm.load()
    llm.unload()

    with pytest.raises(AssertionError, match="`load` comes first"):
        llm.session()


def test_generate_works_in_a_script():
    llm, _ = batch_llm(Answer.of(completion("fine")))

    assert llm.generate([MESSAGES])[0]["generations"] == ["fine"]


def test_generate_works_inside_a_running_event_loop():
    """A notebook's cells run in an event loop; another thread then runs the calls."""
    llm, _ = batch_llm(Answer.of(completion("fine")))

    async def cell():
        thread = llm.wait_for(current_thread)
        return llm.generate([MESSAGES]), thread

    outputs, thread = asyncio.run(cell())
    assert outputs[0]["generations"] == ["fine"]
    assert thread is not threading.current_thread()


async def current_thread() -> threading.Thread:
    return threading.current_thread()


def test_row_groups_wait_side_by_side():
    """Under greenback `generate` gives way to other row groups, and keeps the caller's random numbers."""
    llm, _ = batch_llm(Answer.of(completion("fine")))
    waiting = []

    async def wait_for_both():
        waiting.append(random.random())
        while len(waiting) < 2:
            await anyio.sleep(0)

    async def group(drawn):
        await greenback.ensure_portal()
        random.seed(7)
        llm.wait_for(wait_for_both)
        drawn.append(random.random())

    async def run():
        drawn = []
        async with anyio.create_task_group() as groups:
            groups.start_soon(group, drawn)
            groups.start_soon(group, drawn)
        return drawn

    drawn = asyncio.run(run())

    random.seed(7)
    assert drawn == [random.random()] * 2


def test_cancellation_of_a_script_is_a_keyboard_interrupt():
    """anyio reports Ctrl+C as a cancellation on Python 3.10."""

    async def cancelled():
        raise asyncio.CancelledError

    with pytest.raises(KeyboardInterrupt):
        client().wait_for(cancelled)


def test_interruption_is_reported_through_the_environment(monkeypatch):
    """The error names the jobs in progress."""
    monkeypatch.delenv(SIGINT_HANDLER_CALLED_ENV_NAME, raising=False)
    assert base._interruption(["batch_1"]) is None

    monkeypatch.setenv(SIGINT_HANDLER_CALLED_ENV_NAME, "1")
    error = base._interruption(["batch_1"])
    assert isinstance(error, DistilabelOfflineBatchGenerationNotFinishedException)
    assert error.jobs_ids == ("batch_1",)


@pytest.mark.parametrize(
    ("fields", "max_bytes"),
    [
        ({}, 200_000_000),
        ({"base_url": "https://api.together.xyz/v1"}, 100_000_000),
        ({"base_url": "https://api.together.xyz/v1", "max_bytes_per_job": 5_000_000}, 5_000_000),
        ({"batch_api": "together"}, 100_000_000),
    ],
)
def test_no_file_exceeds_the_limit_of_the_server(fields, max_bytes):
    llm = OpenAIBatchLLM(**{"model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key": "any"} | fields)
    assert llm.session_settings().max_bytes == max_bytes


@pytest.mark.parametrize("model", [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings])
def test_distilabel_takes_no_type_of_a_field_for_a_class(model):
    """distilabel asks for the bases of a cached field's type; on Python 3.10 `dict[str, str]` counts as a class."""
    types = {name: extract_annotation_inner_type(field.annotation) for name, field in model.model_fields.items()}
    assert not [name for name, type_ in types.items() if isinstance(type_, GenericAlias)]
