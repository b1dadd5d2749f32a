"""A step's process: its name, its dry run, its random numbers, and the end of its messages after a stop."""

from __future__ import annotations

import contextvars
import functools
import logging
import random
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException

from distilabel_openai_batch.errors import RunError

STOPS_THE_PIPELINE = (RunError, DistilabelOfflineBatchGenerationNotFinishedException)
_logger = logging.getLogger("distilabel.openai_batch")
_as_they_are = contextvars.ContextVar("as_they_are", default=False)
_as_ordinary_steps = contextvars.ContextVar("as_ordinary_steps", default=False)
_stopped_steps: set[int] = set()
_formatted = contextvars.ContextVar[list[int] | None]("formatted", default=None)
_reasons_column = contextvars.ContextVar[str | None]("reasons_column", default=None)
_running_step = ""
_dry_run = False


def running_step() -> str:
    """The name of the step that this process runs; empty outside a pipeline."""
    return _running_step


def is_dry_run() -> bool:
    """Whether the pipeline whose step this process runs is only tried out."""
    return _dry_run


def sends_nothing_more(step: Any) -> None:
    """Says that a step was stopped, and what it has is not its result."""
    _stopped_steps.add(id(step))


def _know_the_running_step(is_ours: Callable[[Any], bool]) -> None:
    """An LLM is not told which step holds it, and two steps that ask the same question are two buyers.

    What stops the pipeline is sent to its process without the step and its rows: they are not needed there, may be
    large, and cannot be sent at all where a step of the pipeline was defined within a function.
    """
    run = _StepWrapper.run

    # It is sent to the step's process by its name.
    @functools.wraps(run)
    def wrapped(self: Any) -> Any:
        global _running_step, _dry_run
        _running_step, _dry_run = self.step.name, self.dry_run
        if is_ours(self.step):
            _seed(self.step)
            _as_they_are.set(True)
        try:
            return run(self)
        except _StepWrapperException as error:
            if isinstance(error.subprocess_exception, STOPS_THE_PIPELINE):
                step = types.SimpleNamespace(name=self.step.name, is_global=self.step.is_global)
                bare = _StepWrapperException("", step, error.code, error.subprocess_exception)
                # It is whole already: what is passed is made longer.
                bare.message = error.message
                raise bare from None
            raise

    _StepWrapper.run = wrapped


def _seed(step: Any, row_group: int | None = None) -> None:
    """A step that draws at random draws in the next run what it drew in this one, and so asks the same questions.

    distilabel's `EvolInstruct` and `Magpie` draw from generators that nobody seeds.
    """
    named = f"{step.name}/{getattr(step, 'seed', None)}/{row_group}"
    seed = zlib.crc32(named.encode())
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Whoever waits finds the random number generators as they were, whatever was drawn from them meanwhile.

    Row groups that are processed side by side draw as if each were alone, in whichever order they are answered.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _send_nothing_after_a_stop() -> None:
    """A step that was stopped sends no batch.

    distilabel's loop sends in its `finally` an empty last batch even then, which is cached as the step's result: the
    next run would lose every row, or hang.
    """
    send_batch = _StepWrapper._send_batch

    def wrapped(self: Any, batch: Any) -> None:
        if id(self.step) not in _stopped_steps:
            send_batch(self, batch)

    _StepWrapper._send_batch = wrapped
