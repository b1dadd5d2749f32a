"""End a run whose `MixtureOfAgentsLLM` generates nothing, before the next Task is billed for `None`s.

distilabel's own loop runs a step with such an LLM, one batch of rows after another, so no rows can be held back: the
run ends with the batch that makes ten rows without any generation.

Replaced: `MixtureOfAgentsLLM._agenerate`.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator
from typing import Any

from distilabel.models.llms import MixtureOfAgentsLLM

from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks.clients import batch_client, batch_clients
from distilabel_openai_batch.hooks.empty_rows import AnswerGuard
from distilabel_openai_batch.hooks.registry import patch

Rows = list[dict[str, Any]]

_guards: dict[int, AnswerGuard] = {}
"""The guards of this process's steps, by the `id` of the step: distilabel's steps cannot be hashed."""


def is_guarded(step: Any) -> bool:
    """Return whether a step reaches clients through a `MixtureOfAgentsLLM` alone."""
    is_mixture = isinstance(getattr(step, "llm", None), MixtureOfAgentsLLM)
    return is_mixture and batch_client(step) is None and bool(batch_clients(step))


def guard_rows(step: Any, batches: Iterator[Rows]) -> Iterator[Rows]:
    """Yield the rows of a step, unless ten or more rows of the step lack a generation, and no row has one.

    Args:
        step: a step for which `is_guarded` holds.
        batches: yields the rows of one call of the step's `process`.

    Raises:
        NoGenerationsError: the rows must not go on to the next Task.
    """
    guard = _guard_of(step)
    while True:
        log = CallLog()
        with log.activate():
            rows = next(batches, None)
        if rows is None:
            return
        guard.add(log, len(rows))
        guard.check()
        yield rows


def _guard_of(step: Any) -> AnswerGuard:
    if id(step) not in _guards:
        # The guard must not keep the step alive.
        named = types.SimpleNamespace(name=step.name, _logger=step._logger)
        _guards[id(step)] = AnswerGuard(named, batch_clients(step)[0])
        weakref.finalize(step, _guards.pop, id(step), None)
    return _guards[id(step)]


@patch(MixtureOfAgentsLLM, "_agenerate", parameters=["self", "inputs", "num_generations", "kwargs"])
async def _agenerate(original: Any, self: Any, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """Note whether the mixture returned a generation: the answers of its proposers are none."""
    outputs: list[dict[str, Any]] = await original(self, *args, **kwargs)
    if (log := CallLog.active()) and not log.has_generation:
        log.has_generation = any(text is not None for output in outputs for text in output["generations"])
    return outputs
