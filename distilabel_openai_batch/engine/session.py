"""A session: calls of one event loop in, outcomes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio.to_thread
import orjson

from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.model_traits import read_limit
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, digest_body
from distilabel_openai_batch.api.truncation import find_cut_choices
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.engine.calls import APICall, CallGroup, CallLog, Calls, ScopeMemory
from distilabel_openai_batch.engine.cut_answers import (
    MAX_DOUBLINGS,
    double_limit,
    is_improvement,
    is_limited,
    is_spent,
    mark_cut,
)
from distilabel_openai_batch.engine.failure_log import FailureLog
from distilabel_openai_batch.engine.known_answers import KnownAnswers
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.repairs import Repairs, SchemaChecks
from distilabel_openai_batch.engine.request_builder import Columns, RequestBuilder, join_digests
from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.engine.submission import Submission
from distilabel_openai_batch.errors import RunError, as_run_error
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import NOT_SENT, KnownRequest
from distilabel_openai_batch.structured_output.repair import Repair
from distilabel_openai_batch.text import escape_surrogates

ReadOutcome = Callable[[int, Outcome, str | None], Failure | None]
"""Function that reads an outcome, given its index and its `custom_id`; returns why an answer lacks a generation."""


@dataclass(frozen=True, slots=True)
class OutcomeReader:
    """Reader of the outcomes of one call of `Session.submit`.

    Attributes:
        read: reads one outcome. It is called in the order of the outcomes.
        read_plain: reads all answers that have nothing but whole texts, before `read` is called, and returns the
            indexes of the other outcomes, ascending. By default, `read` reads each outcome.
    """

    read: ReadOutcome
    read_plain: Callable[[Sequence[Outcome]], Sequence[int]] = lambda outcomes: range(len(outcomes))

    def read_all(self, outcomes: Sequence[Outcome], custom_id: str | None = None) -> None:
        """Read outcomes that no server gave, all with the same `custom_id`."""
        for index in self.read_plain(outcomes):
            self.read(index, outcomes[index], custom_id)


@dataclass(frozen=True, slots=True)
class SessionParts:
    """Parts that a session is made of.

    Attributes:
        buffer: holds the requests until they are answered.
        requests: builds the requests.
        activity: the local work of the session.
        ledger: knows the requests of earlier runs.
        observer: receives the events of the run.
        memory: tells equal requests of this process apart.
        submission: rows and jobs that are kept for a later run.
        traits: traits of the server's models.
        failure_log: receives the failures of rows that no job shows.
        known_answers: finds the answers to whole calls; `None` if each request takes the way through the buffer.
    """

    buffer: CallBuffer
    requests: RequestBuilder
    activity: Activity
    ledger: Ledger
    observer: Observer
    memory: ScopeMemory
    submission: Submission
    traits: LearnedTraits
    failure_log: FailureLog = field(default_factory=FailureLog)
    known_answers: KnownAnswers | None = None


class Session:
    """Answer calls through the Batch API.

    Args:
        base_url: the address of the server.
        settings: the limits that requests have to keep.
        parts: the parts of the session.

    Attributes:
        base_url: the address of the server.
        submission: rows and jobs that are kept for a later run.
        was_interrupted: whether a user of the session was cancelled, or ended with an error.
    """

    def __init__(self, base_url: str, settings: SessionSettings, parts: SessionParts) -> None:
        self.base_url = base_url
        self.submission = parts.submission
        self.was_interrupted = False
        self._settings = settings
        self._buffer = parts.buffer
        self._activity = parts.activity
        self._checks = SchemaChecks(parts.activity)
        self._ledger = parts.ledger
        self._observer = parts.observer
        self._memory = parts.memory
        self._requests = parts.requests
        self._traits = parts.traits
        self._failure_log = parts.failure_log
        self._known_answers = parts.known_answers
        # Without reuse, occurrence numbers begin behind the last delivered answer.
        self._first_number = None if settings.reuse_answers else parts.ledger.requests.next_occurrence

    def hold(self) -> None:
        """Submit full jobs alone until `release`: more calls are on their way."""
        self._buffer.hold()

    def release(self, *, more_may_come: bool = False) -> None:
        """Submit all calls when every caller waits: no more calls are on their way for now.

        Args:
            more_may_come: whether calls may follow later. A session that does not wait for jobs then goes on holding
                its calls: the session ends when all its calls are submitted.
        """
        if self._settings.jobs.wait or not more_may_come:
            self._buffer.release()

    async def wait_until_idle(self) -> None:
        """Wait until the session only waits for the server: it reads no results and looks nothing up."""
        await self._activity.wait_until_idle()

    async def submit(self, calls: Calls, reader: OutcomeReader | None = None) -> list[Outcome]:
        """Wait until each call has an outcome; submit a call again if its answer does not fit its schema.

        Args:
            calls: the calls; a failure among them is its own outcome.
            reader: reads the outcomes, while the session is open.

        Returns:
            One outcome for each call, in the order of the calls.

        Raises:
            RunError: the run cannot go on. Any other exception of the engine arrives as an `InternalError`.
        """
        try:
            return await self._submit(calls, reader)
        except RunError:
            raise
        except Exception as error:
            # The buffer passes on errors of the host too, such as an interruption → raise these unchanged.
            if error is self._buffer.error:
                raise
            raise as_run_error(error) from error

    async def _submit(self, calls: Calls, reader: OutcomeReader | None) -> list[Outcome]:
        """Submit calls, and the retries of answers that do not fit their schema; see `submit`."""
        with_schema: dict[int, APICall] = {}
        columns = self._requests.encode(_noting_schemas(calls, with_schema))
        custom_ids = self._acquire_custom_ids(columns)
        repairs = Repairs(self._checks, with_schema)
        if self._known_answers and not with_schema and self._requests.can_build_later(columns):
            try:
                answers = await self._known_answers.find(custom_ids)
            except BaseException:
                self._release(custom_ids)
                raise
            if answers:
                return self._hand_over([*answers], self._requests.build_lazily(columns, custom_ids), repairs, reader)
        submitted: list[Request | Failure] = []
        try:
            outcomes = await self._submit_once(self._requests.build(columns, custom_ids), submitted)
            if self._settings.retries_cut:
                await self._retry_cut(outcomes, submitted)
            await repairs.start(outcomes)
            while retries := repairs.retries():
                self._observer.on_resubmitted(len(retries))
                start = len(submitted)
                built = self._build([call for _, _, call in retries], "unfit answer")
                repaired = await self._submit_once(built, submitted)
                self._report_failed_retries(repaired)
                await repairs.add(retries, repaired, submitted[start:])
        except BaseException:
            self._release([request.custom_id for request in submitted if request.custom_id])
            raise
        for index, outcome in enumerate(outcomes) if Failure in set(map(type, outcomes)) else ():
            request = submitted[index]
            if isinstance(outcome, Failure) and isinstance(request, Request):
                outcomes[index] = replace(outcome, custom_id=request.custom_id)
                self._failure_log.add_failed(request)
        return self._hand_over(outcomes, submitted, repairs, reader)

    def _hand_over(
        self,
        outcomes: list[Outcome],
        submitted: Sequence[Request | Failure],
        repairs: Repairs,
        reader: OutcomeReader | None,
    ) -> list[Outcome]:
        """Read the outcomes of a call, log them, and return them.

        Args:
            outcomes: the outcomes.
            submitted: the request of each outcome, and behind these their retries.
            repairs: the repairs of answers that did not fit their schema.
            reader: reads the outcomes.
        """
        if self._failure_log.replaced_before:
            for request in submitted[: len(outcomes)]:
                self._failure_log.add_counted(str(request.custom_id))
        logged = list(outcomes)
        for custom_id in repairs.replaced(submitted):
            self._failure_log.add_replaced(custom_id)
        for index, repair in repairs.by_index.items():
            request = submitted[index]
            assert isinstance(request, Request)
            outcomes[index], logged[index] = self._end_repair(repair, request)
        if reader:
            with gc_paused():
                self._read(outcomes, submitted, logged, reader)
        if log := CallLog.active():
            log.add(logged)
        return outcomes

    def _acquire_custom_ids(self, columns: Columns) -> Sequence[str]:
        digests = join_digests(columns)
        return self._memory.acquire_custom_ids(digests, self._first_number) if digests else ()

    def _release(self, custom_ids: Sequence[str]) -> None:
        """Give `custom_id`s without an outcome to the next equal requests, the first one last."""
        for custom_id in reversed(custom_ids):
            self._memory.release_custom_id(custom_id)

    def _build(self, calls: Calls, retry_of: str) -> list[Request | Failure]:
        """Build the requests of calls; see `Request.retry_of`."""
        columns = self._requests.encode(calls)
        return self._requests.build(columns, self._acquire_custom_ids(columns), retry_of)

    def fail(self, error: Exception) -> None:
        """Raise an error in every waiting and every later caller of `submit`."""
        self._buffer.fail(error)

    def _read(
        self,
        outcomes: Sequence[Outcome],
        submitted: Sequence[Request | Failure],
        logged: list[Outcome],
        reader: OutcomeReader,
    ) -> None:
        """Read the outcomes, and report the answers that lack a generation or are cut."""
        others = reader.read_plain(outcomes)
        if self._failure_log.rejected_before:
            for index in set(range(len(outcomes))).difference(others):
                self._failure_log.add_accepted(str(submitted[index].custom_id))
        for index in others:
            outcome, request = outcomes[index], submitted[index]
            if isinstance(outcome, Answer) and self._settings.on_truncated is not None:
                self._note_cut(outcome, request)
            failure = reader.read(index, outcome, request.custom_id)
            if not request.custom_id or not isinstance(outcome, Answer):
                continue
            if not failure:
                self._failure_log.add_accepted(request.custom_id)
            # The end of a repair has reported the choices that do not fit their schema.
            elif logged[index] is outcome:
                self._reject(request, failure)
                logged[index] = failure

    def _note_cut(self, answer: Answer, request: Request | Failure) -> None:
        """Mark the cut choices of an answer, and report the answer."""
        cut = find_cut_choices(answer)
        if not cut or not isinstance(request, Request):
            return
        is_kept = self._settings.on_truncated != "fail"
        limit = read_limit(decode_json(bytes(self._traits.fit(request).body)))
        mark_cut(answer, cut, limit, custom_id=request.custom_id, is_kept=is_kept)
        self._failure_log.add_cut(request.custom_id)
        if is_kept:
            self._observer.on_cut(limit, request.custom_id)

    async def _retry_cut(self, outcomes: list[Outcome], submitted: list[Request | Failure]) -> None:
        """Submit requests again whose answers were cut or empty, with twice the limit.

        Args:
            outcomes: the outcomes of the first requests; better outcomes replace them.
            submitted: the first requests; a request whose outcome counts takes the place of the first one, which moves
                to the end.
        """
        calls = {
            index: self._sent_call(request)
            for index, outcome in enumerate(outcomes)
            if is_limited(outcome) and isinstance(request := submitted[index], Request)
        }
        for _ in range(MAX_DOUBLINGS):
            doubled = {
                index: replace(call, body=body) for index, call in calls.items() if (body := double_limit(call.body))
            }
            retries = await self._affordable_retries(doubled)
            if not retries:
                break
            start = len(submitted)
            submitted += retries.values()
            self._observer.on_resubmitted(len(retries))
            retried = await self._buffer.submit(list(retries.values()))
            self._report_failed_retries(retried)
            calls = {}
            for place, (index, outcome) in enumerate(zip(retries, retried, strict=True), start):
                if is_improvement(outcome, outcomes[index]):
                    if is_limited(outcome):
                        calls[index] = doubled[index]
                    if isinstance(outcomes[index], Answer):
                        self._failure_log.add_cut(str(submitted[index].custom_id))
                    outcomes[index] = outcome
                    submitted[index], submitted[place] = submitted[place], submitted[index]
                self._failure_log.add_replaced(str(submitted[place].custom_id))
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Failure) and is_spent(outcome):
                self._reject(submitted[index], outcome)

    def _report_failed_retries(self, outcomes: Sequence[Outcome]) -> None:
        # Where cut answers are retried, the buffer counts an answer without text as answered.
        failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        count = sum(not (self._settings.retries_cut and is_spent(failure)) for failure in failed)
        if count:
            self._observer.on_resubmission_failed(count)

    def _sent_call(self, request: Request) -> APICall:
        """Return the endpoint and the body with which a request was last submitted."""
        sent = self._traits.fit(request)
        return APICall(sent.endpoint, decode_json(bytes(sent.body)))

    async def _affordable_retries(self, calls: Mapping[int, APICall]) -> dict[int, Request]:
        """Build the retries of cut answers, as many as the budget allows.

        Args:
            calls: the calls of the retries by the index of the outcome.

        Returns:
            The requests by the same index.
        """
        built = zip(calls, self._build(calls.values(), "cut answer"), strict=True)
        retries = {index: retry for index, retry in built if isinstance(retry, Request)}
        custom_ids = [retry.custom_id for retry in retries.values()]
        known = await anyio.to_thread.run_sync(self._ledger.requests.look_up, custom_ids)
        new = [index for index, retry in retries.items() if not _is_paid(known.get(retry.custom_id))]
        affordable = 0
        if self._settings.submits:
            is_sync = self._settings.lanes.may_cost_full_price(len(new))
            affordable = await self._settings.budget.reserve_some([retries[index] for index in new], is_sync)
            if affordable < len(new):
                self._observer.on_cut_unaffordable(len(new) - affordable)
        for index in new[affordable:]:
            self._memory.release_custom_id(retries.pop(index).custom_id)
        if retries:
            self._observer.on_cut_retried(len(retries), max(read_limit(calls[index].body) or 0 for index in retries))
        return retries

    def _reject(self, request: Request | Failure, failure: Failure) -> None:
        assert isinstance(request, Request)
        self._observer.on_rejected(failure, request.custom_id)
        self._failure_log.add_rejected(request, failure)

    def _end_repair(self, repair: Repair, request: Request) -> tuple[Outcome, Outcome]:
        """Return the outcome of a call with a schema, and the outcome that the call's log shows."""
        outcome, failure, custom_id = repair.outcome, repair.failure, request.custom_id
        if not failure:
            self._failure_log.add_accepted(custom_id)
            return outcome, outcome
        self._reject(request, failure)
        failure = replace(failure, custom_id=custom_id)
        if isinstance(outcome, Failure):
            return failure, failure
        outcome.choice_failures = {
            choice: replace(rejected, custom_id=custom_id)
            for choice, rejected in (outcome.choice_failures or {}).items()
        }
        return outcome, failure

    async def _submit_once(self, built: list[Request | Failure], submitted: list[Request | Failure]) -> list[Outcome]:
        """Wait until each request has an outcome, and append the requests to `submitted`."""
        requests = [request for request in built if isinstance(request, Request)]
        if len(requests) == len(built):
            submitted += requests
            return await self._buffer.submit(requests)
        for index, request in enumerate(built):
            if isinstance(request, Failure):
                built[index] = self._name_unsent(request)
                self._observer.on_requested(1)
                self._observer.on_failed(request)
        submitted += built
        outcomes = iter(await self._buffer.submit(requests))
        return [request if isinstance(request, Failure) else next(outcomes) for request in built]

    def _name_unsent(self, failure: Failure) -> Failure:
        """Return the failure of a row that cannot be sent, with a `custom_id` that the next run gives the row too."""
        digest = digest_body(self.base_url, "", orjson.dumps([NOT_SENT, escape_surrogates(failure.message)]))
        [custom_id] = self._memory.acquire_custom_ids(bytes.fromhex(digest))
        self._failure_log.add_unsent(custom_id, failure)
        return replace(failure, custom_id=custom_id)


def _is_paid(entry: KnownRequest | None) -> bool:
    """Return whether an earlier run has paid for a request, or has submitted it."""
    return entry is not None and (entry.outcome is None or isinstance(entry.outcome, Answer) or is_spent(entry.outcome))


def _noting_schemas(calls: Calls, with_schema: dict[int, APICall]) -> Iterator[APICall | CallGroup | Failure]:
    """Yield the calls, and keep those with a schema by index; calls without a schema need not stay in memory."""
    index = 0
    for call in calls:
        if isinstance(call, APICall) and call.schema:
            with_schema[index] = call
        index += len(call) if isinstance(call, CallGroup) else 1
        yield call
