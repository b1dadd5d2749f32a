"""Schedule a Task with a client as a global step that shares its load stage.

Replaced: `is_global`, by which a step is given all rows in one call; `get_steps_load_stages`, which orders the steps in
stages; `process_applying_mappings`, which calls a step's `process`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import anyio
from distilabel.pipeline._dag import DAG
from distilabel.steps import GlobalStep, Step
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.registry import patch, patch_property
from distilabel_openai_batch.hooks.row_groups import process_side_by_side, split_into_row_groups
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, is_stopped, mark_stopped

_logger = logging.getLogger("distilabel.openai_batch")

_counts_as_ordinary: ContextVar[bool] = ContextVar("counts_as_ordinary", default=False)

_routed_tasks: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Tasks with a client whose routed batches another step joins, by `id`; filled in the pipeline's process."""


@contextmanager
def tasks_count_as_ordinary() -> Iterator[None]:
    """Let `is_global` of a Task with a client be `False` inside the block, unless the Task is a `GlobalStep`."""
    token = _counts_as_ordinary.set(True)
    try:
        yield
    finally:
        _counts_as_ordinary.reset(token)


# A patched property of the base class reaches each Task class that a user writes. A patched `model_post_init` would
# not: pydantic copies that method into each subclass.
@patch_property(_Step, "is_global")
@patch_property(_Task, "is_global")
def _is_global(original: Any, self: Any) -> bool:
    """Make a Task with a client a global step, which is given all rows in one call; make a stopped step global too.

    distilabel's generator makes the next batch when the step's output has arrived: an ordinary step would have one
    batch in progress at a time, and so one small job after another.

    distilabel ends the run on an error of a global step only: for an ordinary step the run would continue with `None`s.
    """
    if is_stopped(self):
        return True
    if batch_client(self) is not None and not self.is_generator and _routed_tasks.get(id(self)) is not self:
        return isinstance(self, GlobalStep) or not _counts_as_ordinary.get()
    return bool(original(self))


@patch(DAG, "get_steps_load_stages", parameters=["self", "load_groups"])
def _get_steps_load_stages(original: Any, self: Any, load_groups: Any = None) -> Any:
    """Put Tasks with a client into the load stage of their neighbours.

    distilabel gives each global step a stage of its own: three sibling Tasks would run one after another, for up to a
    day each. While stages are arranged, Tasks with a client count as ordinary steps.
    """
    _find_routed_tasks(self)
    with tasks_count_as_ordinary():
        return original(self, load_groups)


def _find_routed_tasks(dag: Any) -> None:
    """Let a Task stay an ordinary step if another step joins routed batches behind the Task.

    The joining step expects each routed batch by itself: a global Task would merge the batches, and the joining step
    would wait for ever. distilabel marks joining steps in its validation; `get_steps_load_stages` is the first call of
    a run after the validation.
    """
    for name in dag:
        task = dag.get_step(name)["step"]
        if batch_client(task) is None:
            continue
        if not any(dag.is_convergence_step(follower) for follower in dag.get_step_successors(name)):
            continue
        if id(task) not in _routed_tasks:
            _logger.warning(
                f"⚠️ '{name}' receives routed batches that another step joins again, so each batch becomes a job of its"
                " own, one after another. Use a larger `batch_size` before the routing to get fewer jobs."
            )
        _routed_tasks[id(task)] = task


@patch(Step, "process_applying_mappings", parameters=["self", "args"])
def _process_applying_mappings(original: Any, self: Any, *args: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Process the rows of a step with a client in row groups, all groups at the same time, see `row_groups`.

    Another step may still reach a client, through an LLM that is made of several: an error that stops the pipeline
    marks any step as stopped.
    """
    client = batch_client(self)
    try:
        if client is None:
            yield from original(self, *args)
        else:
            yield _process_all_groups(self, client, args)
    except PIPELINE_STOPPING_ERRORS:
        mark_stopped(self)
        raise


def _process_all_groups(step: Any, client: Any, args: tuple[list[dict[str, Any]], ...]) -> list[dict[str, Any]]:
    results: dict[int, list[dict[str, Any]]] = {}
    groups = split_into_row_groups(step, args)
    anyio.run(process_side_by_side, step, client, groups, results.__setitem__)
    return [row for index in range(len(groups)) for row in results[index]]
