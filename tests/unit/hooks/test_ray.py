"""Tests of `hooks/ray.py` with a stand-in for Ray; pipelines on a cluster are in `tests/pipelines/test_ray.py`."""

from __future__ import annotations

import os
import sys
import threading
import time
import types

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.ray import RayPipeline
from distilabel.pipeline.step_wrapper import _StepWrapperException
from distilabel.steps import LoadDataFromDicts, StepResources
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.hooks import ray as ray_hooks
from distilabel_openai_batch.pricing import price_book


class Actor:
    """A handle of an actor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.run = types.SimpleNamespace(remote=lambda: "result")


class StandInRay(types.ModuleType):
    """Ray with actors that run in threads.

    Attributes:
        options: the options of each started actor.
        arguments: the arguments of the actor that was started last.
        killed: the killed actors.
        result: called in place of an actor's `run`.
    """

    def __init__(self) -> None:
        super().__init__("ray")
        self.options: list[dict] = []
        self.arguments: tuple = ()
        self.killed: list[object] = []
        self.names: set[str] = set()
        self.result = lambda: None
        self.util = types.SimpleNamespace(list_named_actors=lambda: list(self.names))

    def remote(self, actor_class):
        return types.SimpleNamespace(options=self._options)

    def _options(self, **options):
        self.options.append(options)
        self.names.add(options["name"])
        actor = Actor(options["name"])

        def start(*arguments):
            self.arguments = arguments
            return actor

        return types.SimpleNamespace(remote=start)

    def get(self, reference):
        return self.result()

    def kill(self, actor):
        self.killed.append(actor)
        self.names.discard(actor.name)


@pytest.fixture
def ray(monkeypatch):
    module = StandInRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def pipeline_of(tmp_path, llm_class=OpenAIBatchLLM) -> RayPipeline:
    with Pipeline(name="on-ray", cache_dir=tmp_path) as pipeline:
        task = TextGeneration(
            name="generate",
            llm=llm_class(model="gpt-4o-mini", api_key="sk-unused"),
            resources=StepResources(cpus=2, resources={"disk": 1}),
        )
        LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}]) >> task
    pipeline = pipeline.ray()
    pipeline._exception, pipeline._stop_called = None, False
    pipeline._output_queue = pipeline._load_queue = pipeline._log_queue = None
    pipeline._dry_run = False
    return pipeline


def reported(monkeypatch) -> list[_StepWrapperException]:
    """The errors that the pipeline is given."""
    errors: list[_StepWrapperException] = []
    monkeypatch.setattr(Pipeline, "_error_callback", lambda self, error: errors.append(error))
    return errors


def run_step(pipeline: RayPipeline, result) -> ray_hooks._Actors:
    """Start the Task's actor, wait until its thread has ended, and return the actors."""
    pipeline._openai_batch_actors = actors = ray_hooks._Actors(pipeline)
    sys.modules["ray"].result = result
    pipeline._run_step(pipeline.dag.get_step("generate")["step"], None, 0)
    for thread in threading.enumerate():
        if thread.name == "distilabel-openai-batch-generate-0":
            thread.join()
    return actors


def raiser(error: Exception):
    def result():
        raise error

    return result


class TaskError(Exception):
    """Ray's error with the error of an actor as its cause."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("An actor failed.")
        self.cause = cause


def test_an_actor_gets_the_steps_resources(ray, tmp_path):
    run_step(pipeline_of(tmp_path), lambda: None)
    assert ray.options == [{"name": "distilabel-on-ray-generate-0", "num_cpus": 2, "resources": {"disk": 1}}]


def test_an_actor_gets_the_variables_of_its_calls_and_keeps_its_own(ray, tmp_path, monkeypatch):
    """An actor's arguments are not shown in Ray's dashboard, as a `runtime_env` is."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    driver = {
        "OPENAI_ORG_ID": "org-1",
        "OPENAI_PROJECT_ID": "proj_1",
        "OPENAI_CUSTOM_HEADERS": "X-Team: data",
        "HTTPS_PROXY": "http://me:password@proxy:1",
        "no_proxy": "localhost",
    }
    for name, value in driver.items():
        monkeypatch.setenv(name, value)
    run_step(pipeline_of(tmp_path), lambda: None)
    *_, variables = ray.arguments
    assert variables == driver
    assert "runtime_env" not in ray.options[0]

    for name in driver:
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", "http://own-proxy:1")
    ray_hooks.add_to_environment(variables)
    own = {name: os.environ.get(name) for name in (*driver, "https_proxy")}
    for name in driver:
        os.environ.pop(name, None)
    assert own == driver | {"HTTPS_PROXY": None, "https_proxy": "http://own-proxy:1"}


def test_the_prices_of_the_environment_reach_workers_without_their_file(tmp_path):
    path = tmp_path / "prices.json"
    path.write_text('{"gpt-6-luna": {"input": 1, "output": 2}}')
    sent = ray_hooks.driver_environment({price_book.VARIABLE: str(path), "HOME": "/root"})
    path.unlink()
    assert sent.keys() == {price_book.VARIABLE}
    assert price_book.load_own_prices(sent[price_book.VARIABLE]).models.keys() == {"gpt-6-luna"}
    assert ray_hooks.driver_environment({price_book.VARIABLE: "azure"}) == {price_book.VARIABLE: "azure"}


def test_the_error_of_a_step_is_reported(ray, tmp_path, monkeypatch):
    errors, pipeline = reported(monkeypatch), pipeline_of(tmp_path)
    error = _StepWrapperException("", None, 2, AuthenticationError("The key was withdrawn."))
    run_step(pipeline, raiser(TaskError(error)))
    assert errors == [error]
    assert len(ray.killed) == 1


def test_a_dead_actor_is_reported(ray, tmp_path, monkeypatch):
    errors, pipeline = reported(monkeypatch), pipeline_of(tmp_path)
    run_step(pipeline, raiser(OSError("The node died.")))
    [error] = errors
    assert isinstance(error.subprocess_exception, RunError)
    message = str(error.subprocess_exception)
    assert message.startswith("The Ray worker of step 'generate' died. Run the same pipeline again")
    assert message.endswith("Ray says: The node died.")
    assert error.step.name == "generate"


def test_an_actor_that_was_killed_at_the_end_is_not_reported(ray, tmp_path, monkeypatch):
    errors, pipeline = reported(monkeypatch), pipeline_of(tmp_path)

    def killed():
        pipeline._openai_batch_actors._ended = True
        raise OSError("It was killed.")

    run_step(pipeline, killed)
    assert not errors


def test_a_step_that_cannot_be_loaded_is_the_cause(ray, tmp_path, monkeypatch):
    errors, pipeline = reported(monkeypatch), pipeline_of(tmp_path)
    load_error = ValueError("No key.")
    run_step(pipeline, raiser(TaskError(_StepWrapperException("", None, 1, load_error))))
    assert not errors

    pipeline._set_steps_not_loaded_exception()

    assert str(pipeline._exception) == "Failed to load all the steps. Could not run pipeline."
    assert pipeline._exception.__cause__ is load_error


def test_a_pipeline_that_stops_keeps_its_error(ray, tmp_path):
    pipeline = pipeline_of(tmp_path)
    pipeline._exception = error = RunError("The first.")
    pipeline._set_steps_not_loaded_exception()
    assert pipeline._exception is error


def test_a_run_ends_its_actors_and_queues(ray, tmp_path, monkeypatch):
    """The first error is raised, even if the end of the run fails for the same reason."""
    pipeline, error = pipeline_of(tmp_path), RunError("The first.")

    class Queue:
        def __init__(self, actor_options):
            self.actor = Actor(actor_options["name"])
            ray.names.add(actor_options["name"])

    def run(self, **options):
        self.QueueClass(actor_options={"name": "distilabel-on-ray-log-queue"})
        self._exception = error
        raise OSError("The log's queue died.")

    monkeypatch.setitem(sys.modules, "ray.util.queue", types.SimpleNamespace(Queue=Queue))
    monkeypatch.setitem(sys.modules, "ray.util", types.SimpleNamespace())

    with pytest.raises(RunError, match="The first"):
        ray_hooks._run(run, pipeline)

    assert [actor.name for actor in ray.killed] == ["distilabel-on-ray-log-queue"]
    assert not ray.names


@pytest.mark.parametrize("loop", ["_output_queue_loop", "_run_load_queue_loop"])
@pytest.mark.parametrize("llm_class", [OpenAILLM, OpenAIBatchLLM])
def test_an_error_that_ends_a_loop_is_raised(tmp_path, monkeypatch, loop, llm_class):
    """A pipeline without a client gets distilabel's behaviour."""
    pipeline, stops = pipeline_of(tmp_path, llm_class), []
    monkeypatch.setattr(BasePipeline, loop, lambda self: raiser(OSError("A queue died."))())
    monkeypatch.setattr(RayPipeline, "_stop", lambda self: stops.append(self))

    if llm_class is OpenAILLM:
        with pytest.raises(OSError, match="A queue died"):
            getattr(pipeline, loop)()
        assert pipeline._exception is None
        return
    getattr(pipeline, loop)()

    assert "The pipeline cannot continue." in str(pipeline._exception)
    assert "Ray says: A queue died." in str(pipeline._exception)
    assert len(stops) == (loop == "_run_load_queue_loop")


def test_end_waits_until_names_are_released(ray, tmp_path):
    actors = ray_hooks._Actors(pipeline_of(tmp_path))
    actors._names.add("queue")
    ray.names.add("queue")
    timer = threading.Timer(0.1, ray.names.clear)
    timer.start()
    began_at = time.monotonic()
    actors.end()
    assert time.monotonic() - began_at >= 0.08
