"""The place of a Task in distilabel's schedule: a global step that shares its stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import anyio
from distilabel.pipeline._dag import DAG
from distilabel.steps import GlobalStep, Step
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.hooks.row_groups import _process_applying_mappings, _row_groups, process_side_by_side
from distilabel_openai_batch.hooks.step_process import (
    STOPS_THE_PIPELINE,
    _as_ordinary_steps,
    _logger,
    _stopped_steps,
    sends_nothing_more,
)

# Tasks of ours that cannot have the whole dataset at once, by `id`, in the pipeline's process.
_fed_batch_by_batch: WeakValueDictionary[int, Any] = WeakValueDictionary()


def _hand_over_whole_dataset(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours counts as a global step, which is given all rows in one call.

    So does any step that was stopped, since only a global step's error ends the run. A generator asks for its next
    batch only when the step's output has arrived: a normal step would never have more than one batch in flight. The
    property is looked up on the class, so that the wrap reaches the user's own Tasks too, unlike one of
    `model_post_init`, which pydantic has captured in each subclass.
    """
    for owner in (_Step, _Task):
        owner.is_global = _global_for_us(owner.is_global.fget, is_ours)


def _global_for_us(is_global: Callable[[Any], Any], is_ours: Callable[[Any], bool]) -> property:
    def wrapped(self: Any) -> bool:
        if id(self) in _stopped_steps:
            return True
        if is_ours(self) and not self.is_generator and _fed_batch_by_batch.get(id(self)) is not self:
            return isinstance(self, GlobalStep) or not _as_ordinary_steps.get()
        return bool(is_global(self))

    return property(wrapped)


def _share_a_stage(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours shares its load stage with its neighbours.

    distilabel gives each global step a stage of its own, one after another: three sibling Tasks would wait three days.
    So, while the stages are arranged, ours say that they are not global.

    This is also the first call of a run that comes after the validation, where a step that joins what a
    `routing_batch_function` has parted is marked as a convergence step. It wants its batches back one by one, as they
    were routed, and would wait for ever for a Task that makes one of them all.
    """
    get_steps_load_stages = DAG.get_steps_load_stages

    def wrapped(self: Any, load_groups: Any = None) -> Any:
        for name in self:
            task = self.get_step(name)["step"]
            if is_ours(task) and any(self.is_convergence_step(follower) for follower in self.get_step_successors(name)):
                if id(task) not in _fed_batch_by_batch:
                    _logger.warning(
                        f"⚠️ '{name}' is given routed batches that another step joins again: each of them is a batch job"
                        " of its own, one after another. A larger `batch_size` before the routing makes fewer."
                    )
                _fed_batch_by_batch[id(task)] = task
        token = _as_ordinary_steps.set(True)
        try:
            return get_steps_load_stages(self, load_groups)
        finally:
            _as_ordinary_steps.reset(token)

    DAG.get_steps_load_stages = wrapped


def _process_row_groups_side_by_side(client_of: Callable[[Any], Any]) -> None:
    """A Task of ours processes its rows in the groups that it would have had anyway, all groups side by side.

    Another one may ask through us all the same, behind an LLM that is made of several.
    """

    def side_by_side(self: Any, client: Any, args: Any) -> list[dict[str, Any]]:
        results: dict[int, list[dict[str, Any]]] = {}
        groups = _row_groups(self, args)
        anyio.run(process_side_by_side, self, client, groups, results.__setitem__)
        return [row for index in range(len(groups)) for row in results[index]]

    def wrapped(self: Any, *args: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        client = client_of(self)
        try:
            if client is None:
                yield from _process_applying_mappings(self, *args)
            else:
                yield side_by_side(self, client, args)
        except STOPS_THE_PIPELINE:
            sends_nothing_more(self)
            raise

    Step.process_applying_mappings = wrapped
