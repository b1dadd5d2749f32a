"""Schedule a Task with a client as an ordinary step in one process, and end a run on an error of any step.

Replaced: `is_global` and `is_normal`, which decide how a step is scheduled; `process_applying_mappings`, which calls a
step's `process`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distilabel.steps import GlobalStep, Step
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.mixtures import guard_rows, is_guarded
from distilabel_openai_batch.hooks.registry import patch, patch_property
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, is_stopped, mark_stopped


# A patched property of the base class reaches each Task class that a user writes. A patched `model_post_init` would
# not: pydantic copies that method into each subclass.
@patch_property(_Step, "is_global")
@patch_property(_Task, "is_global")
def _is_global(original: Any, self: Any) -> bool:
    """Make a Task with a client an ordinary step, also with distilabel's offline batches; make a stopped step global.

    distilabel ends the run on an error of a global step only: for an ordinary step the run would continue with `None`s.
    """
    if is_stopped(self):
        return True
    if batch_client(self) is not None:
        return isinstance(self, GlobalStep)
    return bool(original(self))


@patch_property(_Step, "is_normal")
def _is_normal(original: Any, self: Any) -> bool:
    """Run a Task with a client in one process: replicas would share one scope of the ledger."""
    return batch_client(self) is None and bool(original(self))


@patch(Step, "process_applying_mappings", parameters=["self", "args"])
def _process_applying_mappings(original: Any, self: Any, *args: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Mark a step as stopped if its `process` raises an error that stops the pipeline.

    Any step may reach a client, for example through an LLM that is made of several.
    """
    try:
        batches = original(self, *args)
        yield from guard_rows(self, batches) if is_guarded(self) else batches
    except PIPELINE_STOPPING_ERRORS:
        mark_stopped(self)
        raise
