"""Estimate the requests and the cost of a pipeline: run its steps without sending anything.

Each Task runs with a recorder in place of its sessions, so it builds the same requests as in a run. The steps behind a
Task receive its rows with placeholder answers, and each of their prompts counts with the longest answers of all Tasks
before. Steps that do not make a request of each such row cannot be estimated.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import datasets
from distilabel.constants import ROUTING_BATCH_FUNCTION_ATTR_NAME
from distilabel.steps import GlobalStep
from distilabel.steps.tasks.base import _Task
from pydantic import SecretStr

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import build_custom_id
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.engine.answer_reuse import digests_at, select_source
from distilabel_openai_batch.engine.calls import APICall, CallLog, Calls, each_call
from distilabel_openai_batch.engine.cut_answers import MAX_DOUBLINGS
from distilabel_openai_batch.engine.learned_traits import fit_call, group_refusals
from distilabel_openai_batch.engine.session import OutcomeReader
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.hooks import row_groups
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.scope_row import recorded_spelling
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.operations import cut_retries
from distilabel_openai_batch.operations.cut_retries import CutRetries, RecordedAnswers
from distilabel_openai_batch.operations.earlier_answers import count_earlier_answers, find_elsewhere
from distilabel_openai_batch.operations.pipeline_source import load_pipeline
from distilabel_openai_batch.plugin import row_sources
from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM
from distilabel_openai_batch.plugin.steps.load import LoadBatchResults
from distilabel_openai_batch.plugin.steps.stream import StreamBatchResults
from distilabel_openai_batch.plugin.steps.submit import SubmitBatch
from distilabel_openai_batch.pricing import token_estimates
from distilabel_openai_batch.pricing.prices import Cost, Rates
from distilabel_openai_batch.pricing.step_estimate import StepEstimate

_Rows = list[dict[str, Any]]

# Nothing is sent → without settings in the environment any value will do.
_PLACEHOLDER_KEY = SecretStr("none")
_AZURE_PLACEHOLDERS = {"base_url": "https://unknown.openai.azure.com", "api_version": "unknown"}


@dataclass(slots=True)
class _RequestRecorder:
    """Replacement of a client's sessions that records requests instead of sending them.

    Attributes:
        base_url: address of the server, as the ledger has it.
        settings: settings of the client's sessions.
        sources: other scopes whose answers the run takes.
        refused: parameters that the server refused in earlier runs, by the model's name.
        answers_before: tokens of the answers of Tasks before that each prompt may contain; `None` without a bound.
        requests: `custom_id` and estimated tokens of each request.
        source_ids: the `custom_id` of each request in each other scope.
        retry_digests: the digests of each request's retries, for a step that submits cut answers again.
        occurrences: the number of requests by digest.
        in_rounds: whether a request followed an answer in the same row group.
    """

    base_url: str
    settings: Any
    sources: Sequence[ScopeName] = ()
    refused: Mapping[str, Collection[str]] = field(default_factory=dict)
    answers_before: int | None = 0
    requests: list[tuple[str, Usage | None]] = field(default_factory=list)
    source_ids: dict[ScopeName, list[str]] = field(default_factory=dict)
    retry_digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    occurrences: Counter[str] = field(default_factory=Counter)
    in_rounds: bool = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[_RequestRecorder]:
        """Yield the recorder as a session."""
        yield self

    async def submit(self, calls: Calls, reader: OutcomeReader | None = None) -> list[Outcome]:
        """Record calls, let `reader` read a placeholder answer for each, and return these answers."""
        log = CallLog.active()
        is_later_round = bool(log and log.calls)
        outcomes = [
            call if isinstance(call, Failure) else self._record(call, is_later_round) for call in each_call(calls)
        ]
        self.in_rounds = self.in_rounds or is_later_round
        # Calls made at the same time are one round → record all of them before an outcome becomes visible.
        await anyio.lowlevel.checkpoint()
        if reader:
            reader.read_all(outcomes)
        if log:
            log.add(outcomes)
        return outcomes

    def _record(self, call: APICall, is_later_round: bool) -> Outcome:
        endpoint = self.settings.endpoint(call.endpoint)
        try:
            body, digest = call.build(self.base_url, endpoint)
        except ValueError as error:
            return Failure(str(error))
        sent_to, sent = self._fit(call, endpoint, bytes(body))
        usage = token_estimates.estimate_usage(sent_to, sent)
        if usage and is_later_round:
            # A later request may contain an earlier answer → add the tokens of one answer of full length.
            usage = token_estimates.with_more_input(usage, usage.tokens_out // _choice_count(call.body))
        if usage and self.answers_before != 0:
            before = self.answers_before
            usage = None if before is None else token_estimates.with_more_input(usage, before)
        number = self.occurrences[digest]
        custom_id = build_custom_id(digest, number)
        self.requests.append((custom_id, usage))
        if self.settings.retries_cut:
            self.retry_digests[custom_id] = cut_retries.retry_digests(APICall(sent_to, sent), self.base_url, sent_to)
        for source in self.sources:
            is_own = source.base_url == self.base_url
            [source_digest] = [digest] if is_own else digests_at(call, [source.base_url]).values()
            self.source_ids.setdefault(source, []).append(build_custom_id(source_digest, number))
        self.occurrences[digest] += 1
        return _placeholder_answer(call.body)

    def _fit(self, call: APICall, endpoint: str, body: bytes) -> tuple[str, Mapping[str, Any]]:
        """Return the endpoint and the body that a run sends, with the parameters that the model is known to take."""
        refused = self.refused.get(str(call.body["model"]))
        if not refused:
            return endpoint, call.body
        responses_endpoint = self.settings.endpoint(RESPONSES_ENDPOINT)
        path, fitted = fit_call(refused, endpoint, body, responses_endpoint, has_default_limit=call.has_default_limit)
        return path, decode_json(fitted)


def _placeholder_answer(body: Mapping[str, Any]) -> Answer:
    """Return a valid answer to a request whose choices are an ellipsis each."""
    choice = {"text": "…", "message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"}
    choices = [{**choice, "index": index} for index in range(_choice_count(body))]
    return Answer.of({"id": "none", "object": "none", "model": body["model"], "choices": choices})


def _choice_count(body: Mapping[str, Any]) -> int:
    return int(body.get("n") or 1)


def estimate_pipeline(
    source: Path | str, parameters: Mapping[str, Any], ledger_dir: Path | None = None
) -> list[StepEstimate]:
    """Estimate each step of a pipeline that uses the Batch API.

    Args:
        source: the pipeline, as `load_pipeline` takes it.
        parameters: runtime parameters, as `Pipeline.run` takes them.
        ledger_dir: directory of the ledger; `None` for the `ledger_dir` of each LLM.

    Returns:
        The estimates in the order of the pipeline's steps.

    Raises:
        OpenAIBatchError: if the source has no pipeline, if it or the parameters have an unknown name, or if a step
            fails that comes before a Task.
    """
    with _quiet():
        return _PipelineEstimator(load_pipeline(str(source), parameters), ledger_dir).estimates()


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off warnings and progress bars: a Task's warnings about placeholder answers mean nothing."""
    disabled_level, had_no_bars = logging.root.manager.disable, datasets.are_progress_bars_disabled()
    logging.disable(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.disable(disabled_level)
        if not had_no_bars:
            datasets.enable_progress_bars()


class _UnknownRowsError(Exception):
    """Rows that depend on answers in a way that placeholder answers do not show.

    Args:
        steps: names of the steps whose answers decide.
    """

    def __init__(self, *steps: str) -> None:
        super().__init__(*steps)
        self.steps = steps


@dataclass(slots=True)
class _TaskRun:
    """Run of a Task with placeholder answers.

    Attributes:
        recorder: the Task's requests.
        inputs: the rows of each predecessor.
        rows: the rows that the Task returned.
    """

    recorder: _RequestRecorder
    inputs: list[_Rows]
    rows: _Rows

    @property
    def longest_answers(self) -> int | None:
        """The tokens of the longest answers to one request; `None` if a request sets no limit."""
        usages = [usage for _, usage in self.recorder.requests]
        longest = max((usage.tokens_out for usage in usages if usage), default=0) if all(usages) else None
        return longest << MAX_DOUBLINGS if longest and self.recorder.settings.retries_cut else longest


class _PipelineEstimator:
    """Estimator of one pipeline, which runs its steps with placeholder answers.

    Args:
        pipeline: validated pipeline.
        ledger_dir: directory of the ledger; `None` for the `ledger_dir` of each LLM.
    """

    def __init__(self, pipeline: Any, ledger_dir: Path | None) -> None:
        self._pipeline = pipeline
        self._ledger_dir = ledger_dir
        self._dag = pipeline.dag
        self._steps = {name: self._dag.get_step(name)["step"] for name in self._dag}
        self._outputs: dict[str, _Rows] = {}
        self._runs: dict[str, _TaskRun] = {}

    def estimates(self) -> list[StepEstimate]:
        """Return an estimate of each step that submits requests, in the order of the pipeline."""
        return [
            self._estimate_step(name, step)
            for name, step in self._steps.items()
            if _uses_batch_api(step) and not isinstance(step, LoadBatchResults)
        ]

    def _estimate_step(self, name: str, step: Any) -> StepEstimate:
        task = _task_of(step)
        client = batch_client(task)
        assert client
        estimate = StepEstimate(name, str(client.model), _address(client), small_limit=_small_limit(client))
        if _makes_own_rows(step):
            return replace(estimate, depends_on=(name,))
        try:
            run = self._run_task(name, step)
        except _UnknownRowsError as error:
            return replace(estimate, depends_on=error.steps)
        recorder = run.recorder
        scope, reader = self._scope_of(name, step, recorder.base_url), self._reader(client)
        known, retries = self._known_requests(client, scope, recorder)
        to_submit = [usage for custom_id, usage in recorder.requests if custom_id not in known]
        first = [*to_submit, *retries.first]
        later = [*retries.later, *(cut_retries.all_retries(to_submit) if recorder.settings.retries_cut else ())]
        book = client.price_book(estimate.base_url)
        rates = book.find_rates(time.time(), estimate.model)
        lanes = client.lane_settings(wait=True)
        behind = self._depends_on(name)
        unknown = [custom_id for custom_id, _ in recorder.requests if custom_id not in known]
        first_cost = _cost(rates, _sum(first), lanes.may_cost_full_price(len(first)))
        # Each later round may be small → a round may go to the synchronous endpoint.
        later_cost = _cost(rates, _sum(later), lanes.may_cost_full_price(1))
        return replace(
            estimate,
            rows=sum(map(len, run.inputs[:1])),
            requests=len(recorder.requests),
            known=len(known),
            resubmitted=len(retries.first),
            usage=_sum([*first, *later]),
            cost=first_cost + later_cost if first_cost and later_cost else None,
            cost_without_retries=first_cost if recorder.settings.retries_cut else None,
            behind=behind,
            asks_in_rounds=recorder.in_rounds,
            is_parted=self._is_parted(name),
            past_jobs=reader.past_jobs(recorder.base_url, estimate.model),
            earlier_answers=count_earlier_answers(reader, scope) if behind and client.reuse_answers else 0,
            answers_elsewhere=find_elsewhere(reader, scope, self._steps, unknown) if client.reuse_answers else None,
            unknown_price=None if rates else book.explain_unknown(estimate.model),
        )

    def _scope_of(self, name: str, step: Any, base_url: str) -> ScopeName:
        if isinstance(step, SubmitBatch):
            return ScopeName(step.run_name or f"{self._pipeline.name}/{name}", "", base_url)
        return ScopeName(self._pipeline.name, name, base_url)

    def _depends_on(self, name: str) -> tuple[str, ...]:
        """Return the nearest predecessors of a step whose output depends on answers."""
        found: dict[str, None] = {}
        for predecessor in self._dag.get_step_predecessors(name):
            step = self._steps[predecessor]
            has_answers = _uses_batch_api(step) or isinstance(step, _Task)
            found |= dict.fromkeys([predecessor] if has_answers else self._depends_on(predecessor))
        return tuple(found)

    def _is_parted(self, name: str) -> bool:
        """Return whether a routing function gives a step only a part of the rows."""
        return any(
            self._dag.get_step(predecessor).get(ROUTING_BATCH_FUNCTION_ATTR_NAME) or self._is_parted(predecessor)
            for predecessor in self._dag.get_step_predecessors(name)
        )

    def _inputs(self, name: str) -> list[_Rows]:
        """Return the rows that a step receives from each of its predecessors."""
        step = self._steps[name]
        if isinstance(step, StreamBatchResults):
            return [list(step.source_rows())]
        return [self._output(predecessor) for predecessor in self._dag.get_step_predecessors(name)]

    def _output(self, name: str) -> _Rows:
        """Run a step once, and return its rows."""
        step = self._steps[name]
        if _uses_batch_api(step):
            if isinstance(step, SubmitBatch | LoadBatchResults) or _makes_own_rows(step):
                raise _UnknownRowsError(name)
            return self._run_task(name, step).rows
        if isinstance(step, _Task):
            # The LLM of another class would be called.
            raise _UnknownRowsError(name)
        if name not in self._outputs:
            inputs = [] if step.is_generator else self._inputs(name)
            try:
                step.load()
                self._outputs[name] = list(_process(step, inputs))
                step.unload()
            except Exception as error:
                if behind := self._depends_on(name):
                    raise _UnknownRowsError(*behind) from error
                raise OpenAIBatchError(
                    f"The step '{name}' fails, so the input of the steps after it is unknown: {error!r}"
                ) from error
        return self._outputs[name]

    def _run_task(self, name: str, step: Any) -> _TaskRun:
        """Run a Task once on its rows.

        Raises:
            _UnknownRowsError: its requests depend on the answers of other steps.
        """
        if name not in self._runs:
            inputs = self._inputs(name)
            self._runs[name] = self._process_task(name, step, inputs)
        run, behind = self._runs[name], self._depends_on(name)
        # A Task that skips placeholder rows might not skip the rows of a run.
        if behind and len(run.recorder.requests) < max(map(len, run.inputs)):
            raise _UnknownRowsError(*behind)
        return run

    def _process_task(self, name: str, step: Any, inputs: list[_Rows]) -> _TaskRun:
        task = _task_of(step)
        client = batch_client(task)
        assert client
        client.budget = None
        if not client.api_key:
            client.api_key = _PLACEHOLDER_KEY
        for attribute, placeholder in _AZURE_PLACEHOLDERS.items():
            if hasattr(client, "api_version") and not getattr(client, attribute):
                setattr(client, attribute, placeholder)
        try:
            task.load()
        except Exception as error:
            raise OpenAIBatchError(f"The step '{name}' cannot be loaded: {error}") from error
        settings = client.session_settings()
        base_url = self._recorded_address(name, step, client)
        sources = self._sources(client, self._scope_of(name, step, base_url))
        reader = self._reader(client)
        refused = group_refusals(reader.refused_parameters(base_url) if reader.path.exists() else ())
        recorder = _RequestRecorder(base_url, settings, sources, refused, self._answers_before(name))
        client.use_sessions(recorder)
        if task is step:
            groups: Iterable[tuple[_Rows, ...]] = row_groups.split_into_row_groups(step, tuple(inputs))
        else:
            size = task.input_batch_size
            if isinstance(step, StreamBatchResults):
                size = min(size, client.max_requests_per_job)
            groups = row_sources.split_into_groups(inputs[0], size)
        finished: dict[int, _Rows] = {}
        anyio.run(row_groups.process_side_by_side, task, client, groups, finished.__setitem__)
        return _TaskRun(recorder, inputs, [row for _, rows in sorted(finished.items()) for row in rows])

    def _answers_before(self, name: str) -> int | None:
        """Return the tokens of the longest answers of all Tasks before a step, which its prompts may contain.

        Returns:
            `None` if an answer has no limit.
        """
        found: set[str] = set()
        waiting = [name]
        while waiting:
            predecessors = set(self._dag.get_step_predecessors(waiting.pop())) - found
            found |= predecessors
            waiting += predecessors
        tokens = [run.longest_answers for step, run in self._runs.items() if step in found]
        return None if None in tokens else sum(count for count in tokens if count)

    def _reader(self, client: BatchClient) -> LedgerReader:
        return LedgerReader(self._ledger_dir or files.ledger_directory(client.ledger_dir))

    def _recorded_address(self, name: str, step: Any, client: BatchClient) -> str:
        """Return the server's address in the spelling of the ledger, which the digests of a run contain."""
        address, reader = public_address(str(client.session_settings().base_url).strip()), self._reader(client)
        base_url = f"{address.rstrip('/')}/"
        addresses = reader.addresses(self._scope_of(name, step, base_url)) if reader.path.exists() else []
        return recorded_spelling(base_url, addresses)

    def _sources(self, client: BatchClient, scope: ScopeName) -> list[ScopeName]:
        """Return the other scopes whose answers a run takes, by `reuse_from` and by `adopt --from`.

        Raises:
            InvalidSettingError: if the ledger has no scope of the name in `reuse_from`, or several.
        """
        reader = self._reader(client)
        if not reader.path.exists() or not client.reuse_answers:
            return []
        others = [entry.name for entry in reader.scopes() if entry.name != scope]
        selected = select_source(others, client.reuse_from, scope) if client.reuse_from else None
        return list(dict.fromkeys([*([selected] if selected else []), *reader.sources(scope)]))

    def _known_requests(
        self, client: BatchClient, scope: ScopeName, recorder: _RequestRecorder
    ) -> tuple[set[str], CutRetries]:
        """Return the requests that the ledger has as answered or in progress, and the retries of those that were cut.

        A run does not submit a known request again, except with a higher limit if the answer was cut.
        """
        reader = self._reader(client)
        if not reader.path.exists() or not client.reuse_answers:
            return set(), CutRetries()
        custom_ids = [custom_id for custom_id, _ in recorder.requests]
        retries_cut = recorder.settings.retries_cut
        recorded = RecordedAnswers.read(reader, scope) if retries_cut else RecordedAnswers()
        known = reader.find_submitted(scope, custom_ids) | recorded.answered.intersection(custom_ids)
        for source, source_ids in recorder.source_ids.items():
            found = reader.find_submitted(source, source_ids)
            taken = {
                other: own
                for own, other in zip(custom_ids, source_ids, strict=True)
                if other in found and own not in known
            }
            known.update(taken.values())
            if taken and retries_cut:
                recorded.add_copies(RecordedAnswers.read(reader, source), taken)
        if not retries_cut:
            return known, CutRetries()
        pairs = [pair for pair in recorder.requests if pair[0] in known]
        return known, cut_retries.find_retries(pairs, recorder.retry_digests, recorded, recorder.occurrences)


def _sum(usages: Sequence[Usage | None]) -> Usage | None:
    """Return the tokens of all requests; `None` if a request sets no limit for its answer."""
    return sum((usage for usage in usages if usage), Usage(0, 0)) if all(usages) else None


def _cost(rates: Rates | None, usage: Usage | None, is_synchronous: bool) -> Cost | None:
    """Return the cost of tokens, `None` if unknown. No tokens cost nothing, even without rates."""
    if usage == Usage(0, 0):
        return Cost()
    return rates.cost(usage, is_synchronous) if rates and usage else None


def _small_limit(client: BatchClient) -> int | None:
    """Return the limit of an answer's tokens that reasoning probably spends; `None` if there is none."""
    return client.small_limit(client.generation_kwargs or {}) if isinstance(client, OpenAIBatchLLM) else None


def _uses_batch_api(step: Any) -> bool:
    return batch_client(_task_of(step)) is not None


def _makes_own_rows(step: Any) -> bool:
    """Return whether a step is a generator whose requests, and their number, depend on its own answers."""
    return bool(step.is_generator) and not isinstance(step, StreamBatchResults)


def _task_of(step: Any) -> Any:
    return step.task if isinstance(step, StreamBatchResults | SubmitBatch | LoadBatchResults) else step


def _address(client: Any) -> str:
    return public_address(str(client.session_settings().base_url if client.api_key else client.base_url or ""))


def _process(step: Any, inputs: list[_Rows]) -> Iterator[dict[str, Any]]:
    """Yield the output rows of a loaded step, which gets its input in batches as in a run."""
    if step.is_generator:
        for batch, _ in step.process_applying_mappings(0):
            yield from batch
        return
    size = max(map(len, inputs)) if isinstance(step, GlobalStep) else step.input_batch_size
    for start in range(0, max(map(len, inputs)), max(1, size)):
        for batch in step.process_applying_mappings(*(rows[start : start + size] for rows in inputs)):
            yield from batch
