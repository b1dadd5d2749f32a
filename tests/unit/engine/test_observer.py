"""Events of runs against the sandbox, as an observer receives them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence

import pytest

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.calls import APICall, scope_memories
from distilabel_openai_batch.engine.deadlines import Deadline
from distilabel_openai_batch.engine.lanes import LaneSettings
from distilabel_openai_batch.engine.observer import Observer, ObserverGroup, with_observers
from distilabel_openai_batch.engine.session_pool import Host, SessionPool
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.sandbox import BatchFault, Fault, RequestFailure
from distilabel_openai_batch.structured_output.options import parse_structured_output
from tests.support.environment import API_KEY
from tests.support.schemas import COUNT

CHAT = "/v1/chat/completions"
EVENTS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if name.startswith("on_")]
pytestmark = pytest.mark.usefixtures("quick_retries")


def _record(event: str) -> Callable[..., None]:
    def record(self: Recorder, *arguments: object) -> None:
        # A batch is polled as often as its time takes → keep one event of several in a row.
        if not (event == "polled" and self.events and self.events[-1][0] == "polled"):
            self.events.append((event, arguments))

    return record


class Recorder(Observer):
    """Observer that records each event with its arguments."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[object, ...]]] = []

    @property
    def names(self) -> list[str]:
        """Return the names of the events."""
        return [name for name, _ in self.events]

    def arguments(self, event: str) -> list[tuple[object, ...]]:
        """Return the arguments of each event with a name."""
        return [arguments for name, arguments in self.events if name == event]


for event in EVENTS:
    setattr(Recorder, event, _record(event.removeprefix("on_")))


@pytest.fixture
def observe(sandbox, tmp_path):
    """Return a function that answers calls in a session of its own, and returns its observer and its outcomes."""

    async def run(calls: Sequence[APICall], wait: bool = True, **changes) -> tuple[Recorder, list[object]]:
        scope_memories.clear()
        values = {
            "base_url": sandbox.base_url,
            "api_key": API_KEY,
            "headers": None,
            "timeout": 5.0,
            "patience": Patience(retries=3),
            "max_requests": 1_000,
            "max_bytes": 1_000_000,
            "max_attempts": 3,
            "max_jobs": 3,
            "jobs": JobSettings("24h", PollSchedule(0.01, 0.02), {}, wait=wait),
            "ledger_dir": tmp_path / "ledger",
            "reuse_answers": True,
        }
        recorder = Recorder()
        host = Host(
            logger=logging.getLogger("observer"),
            scope_name=lambda base_url: ScopeName("observer", "", base_url),
            observer=lambda scope: recorder,
            interruption=lambda batch_ids: None,
            not_finished=lambda batch_ids: InterruptedError(*batch_ids),
        )
        outcomes: list[object] = []
        try:
            async with SessionPool(SessionSettings(**{**values, **changes}), host).use() as session:
                outcomes += await session.submit(calls)
        except InterruptedError:
            pass
        return recorder, outcomes

    return run


def make_calls(requests: int = 3) -> list[APICall]:
    return [
        APICall(CHAT, {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Say number {i}."}]})
        for i in range(requests)
    ]


async def test_events_of_a_run_in_their_order(observe):
    recorder, outcomes = await observe(make_calls())
    assert recorder.names == [
        "requested",
        "job_created",
        "poll_scheduled",
        "polled",
        "collected",
        "answered",
        "finished",
    ]
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    [(batch, shard)] = recorder.arguments("job_created")
    [(ended, results)] = recorder.arguments("collected")
    assert (len(shard.requests), results.answers, ended.id) == (3, 3, batch.id)
    assert recorder.arguments("requested") == recorder.arguments("answered") == [(3,)]


async def test_a_run_that_is_answered_by_the_ledger_reports_reused_requests(observe):
    first, _ = await observe(make_calls(2))
    recorder, _ = await observe(make_calls())
    assert recorder.arguments("reused") == [(2,)]
    assert recorder.arguments("batches_reused") == [([batch.id for batch, _ in first.arguments("job_created")],)]
    assert [len(shard.requests) for _, shard in recorder.arguments("job_created")] == [1]
    assert sum(requests for (requests,) in recorder.arguments("answered")) == 3


async def test_a_job_of_an_earlier_run_is_resumed(observe, sandbox):
    sandbox.configure(in_progress_seconds=600.0)
    first, _ = await observe(make_calls(), wait=False)
    assert first.names == ["requested", "job_created", "finished"]
    sandbox.configure(in_progress_seconds=0.0)
    second, _ = await observe(make_calls())
    assert second.names[:2] == ["requested", "job_resumed"]
    [(batch, requests)] = second.arguments("job_resumed")
    assert (batch.id, requests) == (first.arguments("job_created")[0][0].id, 3)


async def test_a_batch_of_another_machine_is_adopted(observe, tmp_path):
    await observe(make_calls())
    recorder, _ = await observe(make_calls(), ledger_dir=tmp_path / "another")
    assert recorder.names == ["requested", "batch_adopted", "batches_reused", "answered", "reused", "finished"]


async def test_failed_requests_are_retried_and_then_reported(observe, sandbox):
    sandbox.configure(failures=[RequestFailure(contains="number 1", status=500, times=1)])
    recorder, _ = await observe(make_calls())
    assert recorder.arguments("retried") == [(1,)]
    assert recorder.names.count("job_created") == 2

    sandbox.configure(failures=[RequestFailure(contains="number 4", status=400, message="Bad.")])
    recorder, outcomes = await observe(make_calls(6))
    [(failure, custom_id)] = recorder.arguments("failed")
    assert (failure.message, outcomes[4].custom_id) == ("Bad.", custom_id)


async def test_a_refused_batch_is_reported(observe, sandbox):
    refusal = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}
    sandbox.add_fault(BatchFault(kind="fail", value=refusal))
    recorder, _ = await observe(make_calls())
    assert recorder.names.count("batch_refused") == 1
    assert recorder.names.count("job_created") == 2


async def test_a_lost_result_file_is_reported(observe, sandbox):
    sandbox.add_fault(BatchFault(kind="lost_files"))
    recorder, _ = await observe(make_calls())
    assert len(recorder.arguments("result_file_missing")) == 1


async def test_a_batch_in_progress_without_an_input_file_is_reported(observe, sandbox, tmp_path):
    sandbox.configure(in_progress_seconds=600.0)
    await observe(make_calls(), wait=False)
    sandbox.add_fault(Fault(call="files.content", kind="status", status=404, times=1))
    recorder, _ = await observe(make_calls(), wait=False, ledger_dir=tmp_path / "another")
    assert len(recorder.arguments("batch_not_adoptable")) == 1


async def test_synchronous_requests_are_reported(observe, sandbox):
    recorder, _ = await observe(make_calls(), lanes=LaneSettings(sync_below=4))
    assert [model for model, _ in recorder.arguments("sync_answered")] == ["gpt-4o-mini"] * 3
    assert "job_created" not in recorder.names

    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=404, body="{}", times=-1))
    recorder, _ = await observe(make_calls(4), lanes=LaneSettings(sync_below=4))
    assert len(recorder.arguments("sync_unavailable")) == 1
    recorder, _ = await observe(make_calls(6), preflight=True)
    assert len(recorder.arguments("preflight_skipped")) == 1


async def test_a_passed_deadline_is_reported(observe, sandbox):
    sandbox.configure(in_progress_seconds=600.0)
    recorder, _ = await observe(make_calls(), deadline=Deadline(1.0))
    [(requests, batch)] = recorder.arguments("deadline_passed")
    assert (requests, batch.id) == (3, recorder.arguments("job_created")[0][0].id)
    assert len(recorder.arguments("sync_answered")) == 3


async def test_an_answer_that_does_not_fit_its_schema_is_reported(observe):
    schema = parse_structured_output({"schema": COUNT, "max_retries": 0})
    [call] = make_calls(1)
    recorder, [failure] = await observe([APICall(CHAT, call.body, schema)])
    [(rejected, custom_id)] = recorder.arguments("rejected")
    assert (rejected.message, custom_id) == (failure.message, failure.custom_id)


def test_the_methods_of_the_base_class_do_nothing():
    """An observer overrides the events that it needs."""
    observer = Observer()
    for name in EVENTS:
        method = getattr(observer, name)
        assert method(*[None] * len(inspect.signature(method).parameters)) is None


LOGGER = logging.getLogger("observer")
SCOPE = ScopeName("pipeline", "task", "url")


class FailingObserver(Observer):
    """Observer with two events that raise."""

    def on_requested(self, requests: int) -> None:
        raise ValueError("no requests")

    def on_answered(self, requests: int) -> None:
        raise ValueError("no answers")


@pytest.mark.parametrize("event", EVENTS)
def test_a_group_forwards_each_event_to_all_observers(event):
    recorders = [Recorder(), Recorder()]
    arguments = tuple(object() for _ in list(inspect.signature(getattr(Observer, event)).parameters)[1:])

    getattr(ObserverGroup(recorders, LOGGER), event)(*arguments)

    assert [recorder.events for recorder in recorders] == [[(event.removeprefix("on_"), arguments)]] * 2


def test_a_group_forwards_named_arguments():
    class Failures(Observer):
        def on_failed(self, failure, custom_id=None):
            self.failed = failure, custom_id

    failures = Failures()
    ObserverGroup([failures], LOGGER).on_failed("Bad.", custom_id="abc-0")
    assert failures.failed == ("Bad.", "abc-0")


def test_the_first_error_of_an_observer_is_logged_and_the_others_receive_the_event(caplog):
    before, after = Recorder(), Recorder()
    group = ObserverGroup([before, FailingObserver(), after], LOGGER)

    group.on_requested(3)
    group.on_answered(2)
    group.on_finished()

    assert before.names == after.names == ["requested", "answered", "finished"]
    [record] = caplog.records
    assert "`FailingObserver` raised ValueError('no requests') in `on_requested`" in record.message
    assert record.exc_info


def test_an_observer_without_others_is_used_itself():
    """No call of a group is added to the events of a run without observers of users."""
    first = Observer()
    assert with_observers(first, [], SCOPE, LOGGER) is first


def test_factories_receive_the_scope_and_their_observers_follow_the_first():
    scopes, events = [], []

    class Numbered(Observer):
        def __init__(self, number):
            self.number = number

        def on_finished(self):
            events.append(self.number)

    def make(scope):
        scopes.append(scope)
        return Numbered(len(scopes))

    with_observers(Numbered(0), [make, make], SCOPE, LOGGER).on_finished()

    assert scopes == [SCOPE, SCOPE]
    assert events == [0, 1, 2]


def raise_error(scope):
    raise ValueError("no file")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (raise_error, "`raise_error` returned no observer: ValueError('no file')"),
        (lambda scope: None, "returned no observer: TypeError('None is no Observer')"),
    ],
)
def test_a_factory_without_an_observer_is_logged(caplog, factory, message):
    first = Observer()
    assert with_observers(first, [factory], SCOPE, LOGGER) is first
    assert message in caplog.text
