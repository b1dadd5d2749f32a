"""Run a pipeline with a client on a Ray cluster.

distilabel 1.5.3 starts an actor for each step and never waits for the actor's result: after a step's error, or the end
of a machine, the pipeline waits for ever or returns an empty Distiset. Here a thread waits for each actor, and passes
the actor's error to `Pipeline._error_callback`, as a local pipeline does.

Replaced: methods of `RayPipeline`: `run` and `QueueClass`, `_run_step`, the two loops
`_output_queue_loop` and `_run_load_queue_loop`, and `_set_steps_not_loaded_exception`.

Ray is imported inside functions, so that only a `RayPipeline` imports Ray.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import types
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distilabel.models.llms.vllm import vLLM
from distilabel.pipeline.base import set_pipeline_running_env_variables
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.utils.logging import setup_logging, stop_logging

from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks.clients import pipeline_uses_batch_client
from distilabel_openai_batch.hooks.registry import patch, patch_property, require
from distilabel_openai_batch.hooks.run_report import RUN_PARAMETERS, shown
from distilabel_openai_batch.hooks.stopping import LOAD_ERROR_SECONDS, run_loop
from distilabel_openai_batch.pricing import price_book

_NAMES_SECONDS = 5.0
"""Seconds to wait until Ray has released the names of ended actors."""

_SDK_VARIABLES = {
    "OPENAI_ORG_ID",
    "OPENAI_PROJECT_ID",
    "OPENAI_CUSTOM_HEADERS",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
}
"""Variables that the SDK reads when a step is loaded."""

_PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
"""Variables of the network's proxies, in lower case; programs read either case."""

_RUN_AGAIN = "Run the same pipeline again: its batch jobs continue at the server, and no request is submitted twice."

require(RayPipeline, "_create_vllm_placement_group", parameters=["self", "step"])


def driver_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the driver that a step needs: organization, project, headers, proxies and prices.

    Args:
        environment: the environment of the driver.

    Raises:
        InvalidSettingError: the variable of the prices names no provider and no file with prices.
    """
    variables = {
        name: value for name, value in environment.items() if name in _SDK_VARIABLES or name.lower() in _PROXY_VARIABLES
    }
    if value := environment.get(price_book.VARIABLE):
        own = price_book.load_own_prices(value, f"${price_book.VARIABLE}")
        # A worker may lack the file → send its content.
        variables[price_book.VARIABLE] = (own.models and own.text) or value
    return variables


def add_to_environment(variables: Mapping[str, str]) -> None:
    """Set variables that this process lacks in either case: a worker may have a proxy of its own.

    Args:
        variables: values by name.
    """
    present = {name.lower() for name in os.environ}
    os.environ.update({name: value for name, value in variables.items() if name.lower() not in present})


class _StepActor:
    """A step in a process of the cluster.

    The class stands at module level: a worker imports this package to unpickle the class, or fails with an error that
    says so.

    Args:
        step_wrapper: the step and its queues.
        log_queue: the queue for log records.
        pipeline_name: the pipeline's name, which is part of the ledger's scope.
        pipeline_cache_id: the pipeline's signature.
        variables: variables of the driver's environment. Ray shows a `runtime_env` in its dashboard, and proxies and
            headers may have secrets, so the variables are an argument.
    """

    def __init__(
        self,
        step_wrapper: _StepWrapper,
        log_queue: Any,
        pipeline_name: str,
        pipeline_cache_id: str,
        variables: Mapping[str, str],
    ) -> None:
        self._variables = variables
        self._step_wrapper = step_wrapper
        self._log_queue = log_queue
        self._pipeline = pipeline_name, pipeline_cache_id

    def run(self) -> None:
        """Run the step until the step ends."""
        add_to_environment(self._variables)
        setup_logging(log_queue=self._log_queue)
        set_pipeline_running_env_variables(*self._pipeline)
        self._step_wrapper.run()


class _Actors:
    """The actors of one run of a pipeline: the actors of queues, and the actors of steps with their errors.

    Args:
        pipeline: the pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._running_actors: set[Any] = set()
        self._names: set[str] = set()
        self._load_error: Exception | None = None
        self._has_load_error = threading.Event()
        self._ended = False

    def queue(self, queue_class: Any, actor_options: dict[str, Any]) -> Any:
        """Return a new queue, and keep the queue's actor for `end`.

        Args:
            queue_class: Ray's class of queues.
            actor_options: options of the queue's actor, with its `name`.
        """
        queue = queue_class(actor_options=actor_options)
        self._running_actors.add(queue.actor)
        self._names.add(actor_options["name"])
        return queue

    def start(self, step: Any, input_queue: Any, replica: int) -> None:
        """Start a replica of a step, and a thread that waits for the replica to end."""
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
        actor_class = ray.remote(_StepActor).options(name=name, **_actor_options(pipeline, step))
        variables = driver_environment(os.environ)
        actor = actor_class.remote(step_wrapper, pipeline._log_queue, pipeline.name, pipeline.signature, variables)
        self._running_actors.add(actor)
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
            ray.kill(actor)  # otherwise an actor that failed in its constructor keeps its name
            if not self._ended:
                self._report(step, getattr(error, "cause", None), error)
        finally:
            self._running_actors.discard(actor)

    def _report(self, step: Any, cause: Any, error: Exception) -> None:
        """Report an actor's error to the pipeline, as a local pipeline is given the error of a step's process.

        Args:
            step: an object with the step's `name` and `is_global`.
            cause: the step's own error; `None` if the actor died.
            error: Ray's error.
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
        """Return the error of a step that could not be loaded: Ray may report the error after the step has."""
        self._has_load_error.wait(LOAD_ERROR_SECONDS)
        return self._load_error

    def end(self) -> None:
        """Kill all actors that still run, and wait until Ray has released all names."""
        import ray

        self._ended = True
        for actor in list(self._running_actors):
            ray.kill(actor)
        deadline = time.monotonic() + _NAMES_SECONDS
        while self._names & set(ray.util.list_named_actors()) and time.monotonic() < deadline:
            time.sleep(0.02)


def _actor_options(pipeline: Any, step: Any) -> dict[str, Any]:
    if isinstance(getattr(step, "llm", None), vLLM):
        return {"scheduling_strategy": pipeline._create_vllm_placement_group(step)}
    resources = step.resources
    options = {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "memory": resources.memory,
        "resources": resources.resources,
    }
    return {name: value for name, value in options.items() if value is not None}


@patch(RayPipeline, "run", parameters=RUN_PARAMETERS)
def _run(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """End all actors and queues when a run ends, with or without an error.

    Queues have names in the cluster, and distilabel's queues live as long as the pipeline object: the next run in the
    same process would fail because the names are taken.
    """
    if not pipeline_uses_batch_client(self):
        return original(self, *args, **kwargs)
    self._openai_batch_actors = actors = _Actors(self)
    try:
        with shown(self):
            return original(self, *args, **kwargs)
    except Exception:
        if self._exception is None:
            raise
        # The end of the run may have failed for the same reason: raise the first error.
        raise self._exception  # noqa: B904
    finally:
        with suppress(Exception):  # the log's queue may have died
            stop_logging()
        actors.end()


@patch_property(RayPipeline, "QueueClass")
def _queue_class(original: Any, self: Any) -> Any:
    """Let `_Actors` keep each queue that the pipeline makes."""
    queue_class = original(self)
    if not pipeline_uses_batch_client(self):
        return queue_class
    return functools.partial(self._openai_batch_actors.queue, queue_class)


@patch(RayPipeline, "_run_step", parameters=["self", "step", "input_queue", "replica"])
def _run_step(original: Any, self: Any, step: Any, input_queue: Any, replica: int) -> None:
    """Start a step's actor with a thread that waits for the actor: distilabel drops the actor's result."""
    if pipeline_uses_batch_client(self):
        self._openai_batch_actors.start(step, input_queue, replica)
    else:
        original(self, step, input_queue, replica)


@patch(RayPipeline, "_output_queue_loop", parameters=["self"])
def _output_queue_loop(original: Any, self: Any) -> None:
    """Make `pipeline.run` raise an error of the loop, such as a queue that died with its machine."""
    run_loop(self, original, _loop_error)


@patch(RayPipeline, "_run_load_queue_loop", parameters=["self"])
def _run_load_queue_loop(original: Any, self: Any) -> None:
    """Stop the pipeline at an error of the loop, and make `pipeline.run` raise the error."""
    if not run_loop(self, original, _loop_error):
        self._stop()


def _loop_error(error: Exception) -> RunError:
    return RunError(f"The pipeline cannot continue. {_RUN_AGAIN} Ray says: {error}")


@patch(RayPipeline, "_set_steps_not_loaded_exception", parameters=["self"])
def _set_steps_not_loaded_exception(original: Any, self: Any) -> None:
    """Make `pipeline.run` raise the error of a step that could not be loaded: distilabel returns an empty Distiset."""
    if not pipeline_uses_batch_client(self):
        original(self)
    elif not (self._stop_called or self._exception):
        self._exception = RuntimeError("Failed to load all the steps. Could not run pipeline.")
        self._exception.__cause__ = self._openai_batch_actors.load_error()
