"""How a Task hands over its whole dataset, and how it is processed: every touch of distilabel's internals, with why.

distilabel 1.5.3 has no seam for an LLM that waits a day, and its own offline mode loses rows. The wraps below are
installed when `OpenAIBatchLLM` is imported, in the main process and in the steps' processes alike, and act only on
Tasks that hold one; any other pipeline runs as if they were not there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import distilabel
from distilabel.pipeline._dag import DAG
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapper
from distilabel.steps import GeneratorStep, Step
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.hooks import failure_columns, resuming
from distilabel_openai_batch.hooks.row_storage import _pass_rows_as_they_are, _send_rows_across_the_cluster
from distilabel_openai_batch.hooks.scheduling import (
    _hand_over_whole_dataset,
    _process_row_groups_side_by_side,
    _share_a_stage,
)
from distilabel_openai_batch.hooks.step_process import _know_the_running_step, _send_nothing_after_a_stop
from distilabel_openai_batch.hooks.task_outputs import (
    _ask_for_structured_output_without_instructor,
    _say_why_rows_failed,
)


def install(client_of: Callable[[Any], Any], buyer_of: Callable[[Any], Any], buys: Callable[[Any], bool]) -> None:
    """Wraps what has to be wrapped.

    Args:
        client_of: the `OpenAIBatchLLM` or `OpenAIBatchEmbeddings` that a step holds, if it does.
        buyer_of: that, or the one of the Task that it runs.
        buys: whether it has one at all, however deep.

    Raises:
        ImportError: this distilabel is not made as the wraps expect.
    """

    def is_ours(step: Any) -> bool:
        return client_of(step) is not None

    _check_targets()
    _know_the_running_step(is_ours)
    _hand_over_whole_dataset(is_ours)
    _share_a_stage(is_ours)
    _process_row_groups_side_by_side(client_of)
    _pass_rows_as_they_are(is_ours)
    _ask_for_structured_output_without_instructor(is_ours)
    _say_why_rows_failed(client_of)
    _send_rows_across_the_cluster()
    _send_nothing_after_a_stop()

    def own_columns(step: Any) -> list[str]:
        buyer = buyer_of(step)
        return [failure_columns.column(getattr(step, "task", step).name)] if buyer and buyer.add_failures else []

    resuming.install(buys, own_columns)


# What each wrap relies on: the parameters that its target had in distilabel 1.5.3.
_TARGETS: dict[tuple[Any, str], list[str]] = {
    (DAG, "get_steps_load_stages"): ["self", "load_groups"],
    (RayPipeline, "_send_batch_to_step"): ["self", "batch"],
    (GeneratorStep, "process_applying_mappings"): ["self", "offset"],
    (Step, "process_applying_mappings"): ["self", "args"],
    (_Step, "get_outputs"): ["self"],
    (_StepWrapper, "run"): ["self"],
    (_StepWrapper, "_send_batch"): ["self", "batch"],
    (_Task, "_format_outputs"): ["self", "outputs", "input"],
    (_Task, "_set_default_structured_output"): ["self"],
    (BasePipeline, "_send_batch_to_step"): ["self", "batch"],
    (_Batch, "write_batch_data_to_fs"): ["self", "fs", "base_path"],
    (_Batch, "read_batch_data_from_fs"): ["self"],
    **resuming.TARGETS,
}


def _check_targets() -> None:
    differing = [
        f"{owner.__name__}.{name}"
        for (owner, name), parameters in _TARGETS.items()
        if not hasattr(owner, name) or list(inspect.signature(getattr(owner, name)).parameters) != parameters
    ]
    differing += [
        f"{owner.__name__}.is_global"
        for owner in (_Step, _Task)
        if not isinstance(inspect.getattr_static(owner, "is_global", None), property)
    ]
    if differing:
        raise ImportError(
            f"distilabel-openai-batch works with distilabel 1.5.3; distilabel {distilabel.__version__} differs in"
            f" {', '.join(differing)}. Install the one: pip install 'distilabel==1.5.3'."
        )
