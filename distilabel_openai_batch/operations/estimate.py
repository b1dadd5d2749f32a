"""What a pipeline would ask and pay: its steps are run here up to the first answers, and nothing is sent.

Tasks are run with what takes their requests down in the place of the connection, and so build them as they would in a
run. What depends on answers cannot be known before.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import datasets
from distilabel.constants import ROUTING_BATCH_FUNCTION_ATTR_NAME
from distilabel.pipeline import Pipeline
from distilabel.steps import GlobalStep
from distilabel.steps.tasks.base import _Task
from distilabel.utils.serialization import read_json, read_yaml
from pydantic import SecretStr

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import build_custom_id
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.engine.calls import Call, outcomes_seen
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.hooks import row_groups
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.reader import Inventory
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.operations import unknown_names
from distilabel_openai_batch.plugin import row_sources
from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.steps.load import LoadBatchResults
from distilabel_openai_batch.plugin.steps.stream import StreamBatchResults
from distilabel_openai_batch.plugin.steps.submit import SubmitBatch
from distilabel_openai_batch.pricing import prices, token_estimates
from distilabel_openai_batch.pricing.prices import Cost, Rates
from distilabel_openai_batch.pricing.step_estimate import StepEstimate

_Rows = list[dict[str, Any]]

# Nothing is sent, so any will do where the environment has none.
_NO_KEY = SecretStr("none")
_NO_AZURE = {"base_url": "https://unknown.openai.azure.com", "api_version": "unknown"}


@dataclass(slots=True)
class _Recorder:
    """Stands where a client has its sessions, and takes down what is asked.

    Attributes:
        base_url: the server's address, as the ledger has it.
        settings: the session's.
        asked: the `custom_id` and tokens of each request.
        in_rounds: whether any was asked after an answer.
    """

    base_url: str
    settings: Any
    asked: list[tuple[str, Usage | None]] = field(default_factory=list)
    in_rounds: bool = False
    _numbers: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[_Recorder]:
        """A session that sends nothing."""
        yield self

    async def ask(self, calls: Iterable[Call | Failure]) -> list[Outcome]:
        """Takes calls down, and answers each with next to nothing."""
        seen = outcomes_seen.get()
        is_later = bool(seen)
        outcomes = [call if isinstance(call, Failure) else self._note(call, is_later) for call in calls]
        self.in_rounds = self.in_rounds or is_later
        # Those that are asked at the same time are one round.
        await anyio.lowlevel.checkpoint()
        if seen is not None:
            seen.append(outcomes)
        return outcomes

    def _note(self, call: Call, is_later: bool) -> Outcome:
        endpoint = self.settings.endpoint(call.endpoint)
        try:
            body = call.encode()
        except ValueError as error:
            return Failure(str(error))
        digest = call.digest(self.base_url, endpoint, body)
        usage = token_estimates.usage(endpoint, call.body)
        if usage and is_later:
            # An earlier answer that it may be made of, as long as this one may be.
            longer = usage.tokens_in + usage.tokens_out // _choices(call.body)
            usage = Usage.of_request(longer, usage.tokens_out)
        self.asked.append((build_custom_id(digest, self._numbers[digest]), usage))
        self._numbers[digest] += 1
        return _next_to_nothing(call.body)


def _next_to_nothing(body: Mapping[str, Any]) -> Answer:
    """An answer that tells whoever reads it nothing, and is one all the same."""
    choice = {"text": "…", "message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"}
    choices = [{**choice, "index": index} for index in range(_choices(body))]
    return Answer.of({"id": "none", "object": "none", "model": body["model"], "choices": choices})


def _choices(body: Mapping[str, Any]) -> int:
    return int(body.get("n") or 1)


def estimate_pipeline(path: Path, parameters: Mapping[str, Any], ledger_dir: Path | None = None) -> list[StepEstimate]:
    """What each step of a pipeline would ask that asks through the Batch API.

    Args:
        path: the pipeline's YAML or JSON file.
        parameters: runtime parameters, as `Pipeline.run` takes them.
        ledger_dir: the ledger's directory, where it is not to be that of each LLM.

    Returns:
        In the order of the pipeline.

    Raises:
        OpenAIBatchError: the file is no pipeline, has a name in it that nobody knows, or a step fails that its rows
            come through.
    """
    with _quiet():
        try:
            pipeline = Pipeline.from_file(path)
            steps = {name: pipeline.dag.get_step(name)["step"] for name in pipeline.dag}
            content = (read_json if path.suffix == ".json" else read_yaml)(path)
            unknown = [
                *unknown_names.in_steps(content["pipeline"]["steps"]),
                *unknown_names.in_parameters(steps, parameters),
            ]
            pipeline._set_runtime_parameters(parameters)
            pipeline._set_pipeline_name()
            pipeline.dag.validate()
        except Exception as error:
            raise OpenAIBatchError(f"{path} cannot be loaded as a pipeline: {error}") from None
        if unknown:
            listed = "".join(f"\n  {sentence}" for sentence in unknown)
            raise OpenAIBatchError(f"distilabel drops what it does not know, and a run would be another one:{listed}")
        return _PipelineEstimator(pipeline, ledger_dir).estimates()


@contextmanager
def _quiet() -> Iterator[None]:
    """What Tasks make of answers that say nothing is not worth a warning."""
    before, no_bars = logging.root.manager.disable, datasets.are_progress_bars_disabled()
    logging.disable(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.disable(before)
        if not no_bars:
            datasets.enable_progress_bars()


class _PipelineEstimator:
    """Runs a pipeline's steps up to the first answers.

    Args:
        pipeline: validated.
        ledger_dir: the ledger's directory, if one is chosen.
    """

    def __init__(self, pipeline: Any, ledger_dir: Path | None) -> None:
        self._pipeline = pipeline
        self._ledger_dir = ledger_dir
        self._dag = pipeline.dag
        self._steps = {name: self._dag.get_step(name)["step"] for name in self._dag}
        self._rows: dict[str, _Rows] = {}

    def estimates(self) -> list[StepEstimate]:
        """For each step that asks, in the order of the pipeline."""
        return [
            self._estimate_step(name, step)
            for name, step in self._steps.items()
            if _asks(step) and not isinstance(step, LoadBatchResults)
        ]

    def _estimate_step(self, name: str, step: Any) -> StepEstimate:
        task = _task_of(step)
        client = batch_client(task)
        assert client
        about = StepEstimate(name, str(client.model), _address(client))
        if depends_on := self._depends_on(name):
            return replace(about, depends_on=depends_on)
        if step.is_generator and not isinstance(step, StreamBatchResults):
            # It makes its own questions, as many as it needs answers.
            return replace(about, depends_on=(name,))
        given = self._given(name)
        recorder = self._run(name, step, task, client, given)
        count = sum(map(len, given[:1]))
        scope = ScopeName(self._pipeline.name, name, recorder.base_url)
        if isinstance(step, SubmitBatch):
            scope = ScopeName(step.run_name or f"{self._pipeline.name}/{name}", "", recorder.base_url)
        known = self._known(client, scope, [custom_id for custom_id, _ in recorder.asked])
        usages = [usage for custom_id, usage in recorder.asked if custom_id not in known]
        usage = sum((it for it in usages if it), Usage(0, 0)) if all(usages) else None
        rates = prices.rates(about.model, about.base_url, time.time())
        return replace(
            about,
            rows=count,
            requests=len(recorder.asked),
            known=len(known),
            usage=usage,
            cost=_cost(rates, usage, len(usages) < client.sync_below),
            asks_in_rounds=recorder.in_rounds,
            is_parted=self._is_parted(name),
        )

    def _depends_on(self, name: str) -> tuple[str, ...]:
        """The nearest steps before it whose output is made of answers."""
        found: dict[str, None] = {}
        for before in self._dag.get_step_predecessors(name):
            step = self._steps[before]
            is_made_of_answers = _asks(step) or isinstance(step, _Task)
            found |= dict.fromkeys([before] if is_made_of_answers else self._depends_on(before))
        return tuple(found)

    def _is_parted(self, name: str) -> bool:
        return any(
            self._dag.get_step(before).get(ROUTING_BATCH_FUNCTION_ATTR_NAME) or self._is_parted(before)
            for before in self._dag.get_step_predecessors(name)
        )

    def _given(self, name: str) -> list[_Rows]:
        """The rows that a step is given, from each of the steps before it."""
        step = self._steps[name]
        if isinstance(step, StreamBatchResults):
            return [list(step._rows())]
        return [self._rows_of(before) for before in self._dag.get_step_predecessors(name)]

    def _rows_of(self, name: str) -> _Rows:
        """The rows that an ordinary step puts out."""
        if name not in self._rows:
            step = self._steps[name]
            given = [] if step.is_generator else self._given(name)
            try:
                step.load()
                self._rows[name] = list(_processed(step, given))
                step.unload()
            except Exception as error:
                raise OpenAIBatchError(
                    f"The step '{name}' fails, and so it is not known what the steps after it are given: {error!r}"
                ) from error
        return self._rows[name]

    def _run(self, name: str, step: Any, task: Any, client: BatchClient, given: list[_Rows]) -> _Recorder:
        """Has a Task make its requests."""
        client.budget = None
        if not client.api_key:
            client.api_key = _NO_KEY
        for missing, value in _NO_AZURE.items():
            if hasattr(client, "api_version") and not getattr(client, missing):
                setattr(client, missing, value)
        try:
            task.load()
        except Exception as error:
            raise OpenAIBatchError(f"The step '{name}' cannot be loaded: {error}") from error
        settings = client._session_settings()
        recorder = _Recorder(f"{str(settings.base_url).rstrip('/')}/", settings)
        client._sessions = recorder  # type: ignore[assignment]
        if task is step:
            list(step.process_applying_mappings(*given))
        else:
            size = task.input_batch_size
            if isinstance(step, StreamBatchResults):
                size = min(size, client.max_requests_per_job)
            anyio.run(
                row_groups.process_side_by_side, task, client, row_sources.groups(given[0], size), lambda *_: None
            )
        return recorder

    def _known(self, client: BatchClient, scope: ScopeName, custom_ids: Sequence[str]) -> set[str]:
        inventory = Inventory(self._ledger_dir or files.directory(client.ledger_dir))
        if not inventory.path.exists() or not client.reuse_answers:
            return set()
        return inventory.bought(scope, custom_ids)


def _cost(rates: Rates | None, usage: Usage | None, asked_now: bool) -> Cost | None:
    """What tokens cost, if that is known; none cost nothing, whatever they would."""
    if usage == Usage(0, 0):
        return Cost()
    return rates.cost(usage, asked_now) if rates and usage else None


def _asks(step: Any) -> bool:
    return batch_client(_task_of(step)) is not None


def _task_of(step: Any) -> Any:
    return step.task if isinstance(step, StreamBatchResults | SubmitBatch | LoadBatchResults) else step


def _address(client: Any) -> str:
    return str(client._session_settings().base_url if client.api_key else client.base_url or "")


def _processed(step: Any, given: list[_Rows]) -> Iterator[dict[str, Any]]:
    if step.is_generator:
        for some, _ in step.process_applying_mappings(0):
            yield from some
        return
    size = max(map(len, given)) if isinstance(step, GlobalStep) else step.input_batch_size
    for start in range(0, max(map(len, given)), max(1, size)):
        for some in step.process_applying_mappings(*(some_rows[start : start + size] for some_rows in given)):
            yield from some
