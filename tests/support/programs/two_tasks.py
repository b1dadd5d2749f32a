"""Run a pipeline of two Tasks or of another shape, and write its dataset as JSON, or kill the run at a failpoint.

two_tasks.py OUTPUT CACHE [--kill FAILPOINT:STEP] [--no-cache] [--shape SHAPE] [--no-wait] [--flex]
    [--ray ADDRESS]
"""

import argparse
import json
import os
import signal
from pathlib import Path

from distilabel.pipeline import Pipeline
from distilabel.steps import GroupColumns, LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM, StreamBatchResults, SubmitBatch, failpoints
from distilabel_openai_batch.hooks import step_process

LLM_FIELDS = {"model": "gpt-4o-mini", "min_poll_interval": 0.05, "max_poll_interval": 0.3}
ROWS = [{"instruction": f"Say number {i}."} for i in range(12)]


def kill_at(name: str, step_name: str, group: int, done: Path) -> None:
    """Kill the whole process group when a step reaches a failpoint for the first time."""

    def reached(failpoint: failpoints.Failpoint) -> None:
        if failpoint.name == name and step_process.running_step() == step_name and not done.exists():
            done.touch()
            os.killpg(group, signal.SIGKILL)

    failpoints.reached = reached


@step(inputs=["generation"], outputs=["generation"])
def Pass(inputs: StepInput):
    """Pass the rows on, as an ordinary step."""
    yield inputs


def build(shape: str, cache: Path, **fields) -> Pipeline:
    """Build the pipeline of a shape."""

    def llm(**more) -> OpenAIBatchLLM:
        return OpenAIBatchLLM(**{**LLM_FIELDS, **fields, **more})

    def generation_task(name: str, in_small_jobs: bool = False, **more) -> TextGeneration:
        jobs = {"max_requests_per_job": 4, "max_jobs": 1} if in_small_jobs else {}
        return TextGeneration(name=name, llm=llm(**jobs), system_prompt=name, input_batch_size=4, **more)

    def judge_task(**more) -> UltraFeedback:
        return UltraFeedback(name="judge", llm=llm(), input_batch_size=5, **more)

    def task_with_small_jobs() -> dict:
        return {"name": shape, "task": TextGeneration(name="task", llm=llm(max_requests_per_job=4))}

    with Pipeline(name=f"killed-{shape}", cache_dir=cache) as pipeline:
        if shape == "stream":
            StreamBatchResults(data=ROWS, batch_size=4, **task_with_small_jobs()) >> Pass(
                name="pass", input_batch_size=3
            )
            return pipeline
        if shape == "load":
            load_results = LoadBatchResults(run_name="killed", batch_size=4, **task_with_small_jobs())
            load_results >> Pass(name="pass", input_batch_size=3)
            return pipeline
        load = LoadDataFromDicts(data=ROWS, batch_size=4)
        if shape == "submit":
            load >> SubmitBatch(run_name="killed", **task_with_small_jobs())
        elif shape == "leaf":
            load >> generation_task("generate")
        elif shape == "chain":
            generate = generation_task("generate", num_generations=2, group_generations=True)
            load >> generate >> judge_task(input_mappings={"generations": "generation"})
        elif shape == "flow":
            # One small job after another: the rows of the first job go on while the next job runs.
            generate = generation_task("generate", num_generations=2, group_generations=True, in_small_jobs=True)
            (
                load
                >> generate
                >> Pass(name="pass", input_batch_size=3)
                >> judge_task(input_mappings={"generations": "generation"})
            )
        elif shape == "before_step":
            load >> generation_task("generate") >> Pass(name="pass", input_batch_size=3)
        elif shape == "siblings":
            load >> [generation_task(name) for name in ("one", "two", "three")]
        elif shape == "after_step":
            group = GroupColumns(name="group", columns=["generation"], output_columns=["generations"])
            load >> [generation_task(name) for name in ("one", "two", "three")] >> group >> judge_task()
    return pipeline


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--kill", default="")
    parser.add_argument("--shape", default="chain")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--no-wait", action="store_true")
    parser.add_argument("--flex", action="store_true")
    parser.add_argument("--ray", default="", help="address of the Ray cluster that runs the pipeline")
    arguments = parser.parse_args()
    if arguments.kill:
        name, _, step_name = arguments.kill.partition(":")
        kill_at(name, step_name, os.getpgrp(), arguments.output.with_suffix(f".{step_name}"))
    pipeline = build(
        arguments.shape,
        arguments.cache,
        wait=not arguments.no_wait,
        **({"lane": "flex", "model": "gpt-5-nano"} if arguments.flex else {}),
        ledger_dir=os.environ["DISTILABEL_OPENAI_BATCH_DIR"],
    )
    if arguments.ray:
        pipeline = pipeline.ray(ray_init_kwargs={"address": arguments.ray})
    print("begins", flush=True)
    distiset = pipeline.run(use_cache=not arguments.no_cache)
    arguments.output.write_text(
        json.dumps({name: split["train"].to_list() for name, split in distiset.items()}), encoding="utf-8"
    )
