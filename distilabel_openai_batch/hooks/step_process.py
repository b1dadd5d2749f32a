"""Run a step in a process of its own: the step's name, seeded random numbers, and no batch after a stop.

Replaced: `_StepWrapper.run`, the entry point of a step's process, and `_StepWrapper._send_batch`, which sends a
finished batch to the pipeline's process.
"""

from __future__ import annotations

import logging
import random
import types
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException

from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.row_storage import keeps_row_types
from distilabel_openai_batch.hooks.step_reports import reporting
from distilabel_openai_batch.hooks.stopping import mark_child
from distilabel_openai_batch.text import escape_log_lines, printable

PIPELINE_STOPPING_ERRORS = (RunError, DistilabelOfflineBatchGenerationNotFinishedException)
"""Errors that stop the whole pipeline; any other error of a row group fills the group with `None`s."""

_stopped_steps: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""The stopped steps of this process, by `id`: a later step may get the `id` of a step that is gone."""

_running_step = ""
_dry_run = False

_seed: ContextVar[int | None] = ContextVar("seed", default=None)
"""The last seed of `seed_random_numbers` in this context, which is a row group's."""


def running_step() -> str:
    """Return the name of the step that this process runs; empty outside a pipeline."""
    return _running_step


def name_step(logger: logging.Logger) -> None:
    """Make a logger begin each line with the name of the step that the process runs, if any.

    Two Tasks with one model share the name of their LLM's logger, and distilabel's `pipeline.log` has no logger names.
    """
    logger.addFilter(_add_step_name)


def _add_step_name(record: logging.LogRecord) -> bool:
    if _running_step:
        record.msg, record.args = f"[{printable(_running_step)}] {record.getMessage()}", None
    return True


def is_dry_run() -> bool:
    """Return whether this process runs a step of `Pipeline.dry_run`."""
    return _dry_run


def mark_stopped(step: Any) -> None:
    """Record that an error stopped a step, so that no batch of the step is sent any more."""
    _stopped_steps[id(step)] = step


def is_stopped(step: Any) -> bool:
    """Return whether `mark_stopped` was called for a step."""
    return _stopped_steps.get(id(step)) is step


@patch(_StepWrapper, "run", parameters=["self"])
def _run(original: Any, self: Any) -> Any:
    """Record the step's name, and send an error that stops the pipeline without the step and its rows.

    distilabel does not tell an LLM which step holds it: equal requests of two steps would count as one. The name is
    part of the ledger's scope.

    distilabel sends an error together with the step and its rows: both may be large, and a step whose class was defined
    inside a function cannot be pickled. The replacement sends only the step's name and `is_global`.
    """
    global _running_step, _dry_run
    _running_step, _dry_run = self.step.name, self.dry_run
    if batch_client(self.step) is not None:
        mark_child()
        # A step's log lines quote errors, and so texts of the server.
        escape_log_lines(logging.getLogger(f"distilabel.step.{self.step.name}"))
        seed_random_numbers(self.step)
        keeps_row_types.set(True)
    try:
        with reporting(self):
            return original(self)
    except _StepWrapperException as error:
        if not isinstance(error.subprocess_exception, PIPELINE_STOPPING_ERRORS):
            raise
        step = types.SimpleNamespace(name=self.step.name, is_global=self.step.is_global)
        small = _StepWrapperException("", step, error.code, error.subprocess_exception)
        # The constructor appends a link to the message, which already ends with that link: set the message afterwards.
        small.message = error.message
        raise small from None


@patch(_StepWrapper, "_send_batch", parameters=["self", "batch"])
def _send_batch(original: Any, self: Any, batch: Any) -> None:
    """Send no batch of a stopped step.

    When a step raises, distilabel still sends an empty batch in a `finally` block, and caches that batch as the step's
    result: the next run would lose every row, or hang.
    """
    if not is_stopped(self.step):
        original(self, batch)


def seed_random_numbers(step: Any, row_group: int | None = None) -> None:
    """Seed `random` and NumPy by a step's name, the step's `seed` and a row group's number.

    `EvolInstruct` and `Magpie` draw parts of their prompts from generators that distilabel does not seed: each run
    would draw other prompts, and submit other requests.
    """
    seeded_by = f"{step.name}/{getattr(step, 'seed', None)}/{row_group}"
    seed = zlib.crc32(seeded_by.encode())
    _seed.set(seed)
    _seed_generators(seed)


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def random_state_preserved() -> Iterator[None]:
    """Restore the state of `random` and NumPy when the block ends.

    Row groups run concurrently. A group that waits inside the block draws the same numbers afterwards, in whichever
    order the groups are answered.
    """
    seed = _unused_seed()
    if seed is not None:
        # Most groups draw no numbers → the seed takes the place of 5 kB for each group that waits.
        try:
            yield
        finally:
            _seed_generators(seed)
        return
    version, numbers, gauss_next = random.getstate()
    # 625 integers of 32 bits: 2.5 kB in an array, 25 kB in a tuple, for each group that waits.
    packed, numpy = array("I", numbers), np.random.get_state()
    del numbers
    try:
        yield
    finally:
        random.setstate((version, tuple(packed), gauss_next))
        np.random.set_state(numpy)


def _unused_seed() -> int | None:
    """Return the seed of the running row group if the group has drawn no numbers; `None` otherwise."""
    seed = _seed.get()
    if seed is None:
        return None
    numbers, numpy = random.getstate(), np.random.get_state()
    _seed_generators(seed)
    if numbers == random.getstate() and _is_equal(numpy, np.random.get_state()):
        return seed
    random.setstate(numbers)
    np.random.set_state(numpy)
    return None


def _is_equal(state: Any, other: Any) -> bool:
    """Return whether two states of NumPy are equal; a generator that the user has chosen has another kind of state."""
    return (
        type(state) is type(other) is tuple
        and state[0] == other[0]
        and np.array_equal(state[1], other[1])
        and state[2:] == other[2:]
    )
