"""How a pipeline that holds Tasks of ours runs on a Ray cluster: touches of distilabel's `RayPipeline`, each with why.

distilabel 1.5.3 starts an actor for each step and never asks what becomes of it: a step that fails, and one whose
machine goes away, leave a pipeline that waits for ever, or an empty Distiset. Here somebody waits for each actor, and
what it comes to goes where a local `Pipeline` takes it.

Ray is imported where a `RayPipeline` runs, and nowhere else.
"""

from __future__ import annotations

import functools
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distilabel.models.llms.vllm import vLLM
from distilabel.pipeline.base import set_pipeline_running_env_variables
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.utils.logging import setup_logging, stop_logging

from distilabel_openai_batch.errors import RunError

# For the actor's own words, once its step has said that it could not be loaded.
_LOAD_ERROR_SECONDS = 10.0

# For Ray to forget the names of actors that have ended.
_NAMES_SECONDS = 5.0

_RUN_AGAIN = (
    "Run the same pipeline again: its batch jobs go on at the server, and what they answer is not bought a second time."
)

TARGETS: dict[tuple[Any, str], list[str]] = {
    (RayPipeline, "run"): [
        "self",
        "parameters",
        "load_groups",
        "use_cache",
        "storage_parameters",
        "use_fs_to_pass_data",
        "dataset",
        "dataset_batch_size",
        "logging_handlers",
    ],
    (RayPipeline, "_run_step"): ["self", "step", "input_queue", "replica"],
    (RayPipeline, "_create_vllm_placement_group"): ["self", "step"],
    (RayPipeline, "_output_queue_loop"): ["self"],
    (RayPipeline, "_run_load_queue_loop"): ["self"],
    (RayPipeline, "_set_steps_not_loaded_exception"): ["self"],
}
"""What the wraps rely on: the parameters that their targets had in distilabel 1.5.3."""


def install(holds_ours: Callable[[Any], bool]) -> None:
    """Wraps what has to be wrapped.

    Args:
        holds_ours: whether a pipeline is concerned.
    """
    _leave_nothing_behind(holds_ours)
    _wait_for_each_actor(holds_ours)
    _raise_what_ends_a_loop(holds_ours)
    _raise_failed_loads(holds_ours)


class _StepActor:
    """A step in a process of its own, somewhere in the cluster.

    Defined here and not within a function, so that whoever runs it has imported this package, or says that it cannot.

    Args:
        step_wrapper: the step, and its queues.
        log_queue: where its log goes.
        pipeline_name: who asks, for the ledger too.
        pipeline_cache_id: the pipeline's signature.
    """

    def __init__(self, step_wrapper: _StepWrapper, log_queue: Any, pipeline_name: str, pipeline_cache_id: str) -> None:
        self._step_wrapper = step_wrapper
        self._log_queue = log_queue
        self._pipeline = pipeline_name, pipeline_cache_id

    def run(self) -> None:
        """Runs the step to its end."""
        setup_logging(log_queue=self._log_queue)
        set_pipeline_running_env_variables(*self._pipeline)
        self._step_wrapper.run()


class _Actors:
    """The actors of one run of a pipeline, its queues' among them, and what became of its steps'.

    Args:
        pipeline: which one.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._living: set[Any] = set()
        self._names: set[str] = set()
        self._load_error: Exception | None = None
        self._has_load_error = threading.Event()
        self._ended = False

    def queue(self, kind: Any, actor_options: dict[str, Any]) -> Any:
        """Makes a queue, and remembers its actor.

        Args:
            kind: its class.
            actor_options: its actor's name.
        """
        queue = kind(actor_options=actor_options)
        self._living.add(queue.actor)
        self._names.add(actor_options["name"])
        return queue

    def start(self, step: Any, input_queue: Any, replica: int) -> None:
        """Starts a replica of a step, and a thread that waits for it."""
        import ray

        pipeline = self._pipeline
        step_wrapper = _StepWrapper(
            step=step,
            replica=replica,
            input_queue=input_queue,
            output_queue=pipeline._output_queue,
            load_queue=pipeline._load_queue,
            dry_run=pipeline._dry_run,
            ray_pipeline=True,
        )
        name = f"distilabel-{pipeline.name}-{step.name}-{replica}"
        actor_class = ray.remote(_StepActor).options(name=name, **_resources(pipeline, step))
        actor = actor_class.remote(step_wrapper, pipeline._log_queue, pipeline.name, pipeline.signature)
        self._living.add(actor)
        self._names.add(name)
        threading.Thread(
            target=self._wait_for,
            args=(actor, types.SimpleNamespace(name=step.name, is_global=step.is_global)),
            name=f"distilabel-openai-batch-{step.name}-{replica}",
            daemon=True,
        ).start()

    def _wait_for(self, actor: Any, step: Any) -> None:
        import ray

        try:
            ray.get(actor.run.remote())
        except Exception as error:
            ray.kill(actor)  # one that could not even be made keeps its name otherwise
            if not self._ended:
                self._tell(step, getattr(error, "cause", None), error)
        finally:
            self._living.discard(actor)

    def _tell(self, step: Any, cause: Any, error: Exception) -> None:
        """Tells the pipeline how an actor ended, as a local one is told of its steps' processes.

        Args:
            step: its name, and whether it is global.
            cause: what the step raised, if it did.
            error: what Ray says.
        """
        if not isinstance(cause, _StepWrapperException):
            died = RunError(f"The Ray worker of step '{step.name}' died. {_RUN_AGAIN} Ray says: {error}")
            cause = _StepWrapperException(str(died), step, 2, died)
        if cause.is_load_error:
            self._load_error = cause.subprocess_exception
            self._has_load_error.set()
        else:
            Pipeline._error_callback(self._pipeline, cause)

    def load_error(self) -> Exception | None:
        """Why a step could not be loaded, which Ray may say a moment after the step did."""
        self._has_load_error.wait(_LOAD_ERROR_SECONDS)
        return self._load_error

    def end(self) -> None:
        """Ends those that still live, and waits until the names of all are free."""
        import ray

        self._ended = True
        for actor in list(self._living):
            ray.kill(actor)
        deadline = time.monotonic() + _NAMES_SECONDS
        while self._names & set(ray.util.list_named_actors()) and time.monotonic() < deadline:
            time.sleep(0.02)


def _resources(pipeline: Any, step: Any) -> dict[str, Any]:
    if isinstance(getattr(step, "llm", None), vLLM):
        return {"scheduling_strategy": pipeline._create_vllm_placement_group(step)}
    wanted = step.resources
    asked = {
        "num_cpus": wanted.cpus,
        "num_gpus": wanted.gpus,
        "memory": wanted.memory,
        "resources": wanted.resources,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _leave_nothing_behind(holds_ours: Callable[[Any], bool]) -> None:
    """When a run has ended, however it did, so have its actors and its queues.

    Queues have names, and distilabel's stay for as long as somebody holds the pipeline: the next run in the same
    process would be told that theirs are taken.
    """
    run = RayPipeline.run

    @functools.wraps(run)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not holds_ours(self):
            return run(self, *args, **kwargs)
        self._openai_batch_actors = actors = _Actors(self)
        try:
            return run(self, *args, **kwargs)
        except Exception:
            if self._exception is None:
                raise
            # Winding up may have failed too, for the same reason.
            raise self._exception  # noqa: B904
        finally:
            with suppress(Exception):  # the log's queue may have died
                stop_logging()
            actors.end()

    RayPipeline.run = wrapped

    queue_class = RayPipeline.QueueClass.fget

    def queue_class_wrapped(self: Any) -> Any:
        kind = queue_class(self)
        return functools.partial(self._openai_batch_actors.queue, kind) if holds_ours(self) else kind

    RayPipeline.QueueClass = property(queue_class_wrapped)


def _wait_for_each_actor(holds_ours: Callable[[Any], bool]) -> None:
    """How an actor ended is told to the pipeline. What would say so, distilabel drops."""
    run_step = RayPipeline._run_step

    def wrapped(self: Any, step: Any, input_queue: Any, replica: int) -> None:
        if holds_ours(self):
            self._openai_batch_actors.start(step, input_queue, replica)
        else:
            run_step(self, step, input_queue, replica)

    RayPipeline._run_step = wrapped


def _raise_what_ends_a_loop(holds_ours: Callable[[Any], bool]) -> None:
    """`pipeline.run` raises what ends one of its loops, such as a queue that died with its machine.

    distilabel would wait for ever, or return what has been written by then as if it were the whole dataset.
    """
    output_queue_loop, run_load_queue_loop = RayPipeline._output_queue_loop, RayPipeline._run_load_queue_loop

    def wrapped_output_queue_loop(self: Any) -> None:
        try:
            output_queue_loop(self)
        except Exception as error:
            if not holds_ours(self):
                raise
            self._exception = self._exception or _cannot_go_on(error)

    def wrapped_run_load_queue_loop(self: Any) -> None:
        try:
            run_load_queue_loop(self)
        except Exception as error:
            if not holds_ours(self):
                raise
            self._exception = self._exception or _cannot_go_on(error)
            self._stop()

    RayPipeline._output_queue_loop = wrapped_output_queue_loop
    RayPipeline._run_load_queue_loop = wrapped_run_load_queue_loop


def _cannot_go_on(error: Exception) -> RunError:
    return RunError(f"The pipeline cannot go on. {_RUN_AGAIN} Ray says: {error}")


def _raise_failed_loads(holds_ours: Callable[[Any], bool]) -> None:
    """`pipeline.run` raises that a step could not be loaded, and why, as a local one does.

    A `RayPipeline` returns an empty Distiset.
    """
    set_steps_not_loaded_exception = RayPipeline._set_steps_not_loaded_exception

    def wrapped(self: Any) -> None:
        if not holds_ours(self):
            set_steps_not_loaded_exception(self)
        elif not (self._stop_called or self._exception):
            self._exception = RuntimeError("Failed to load all the steps. Could not run pipeline.")
            self._exception.__cause__ = self._openai_batch_actors.load_error()

    RayPipeline._set_steps_not_loaded_exception = wrapped
