"""Driver of whole distilabel pipelines: TextGeneration, then UltraFeedback or a step that records the time.

Options:
    kind: `ours`, `offline`, `synchronous`, `stream`, or `none` for the same steps without an LLM.
    judge: `True` to add UltraFeedback.
    tasks: number of TextGeneration Tasks in a row, 1 by default; each reads the generation of the Task before.
    per_job: `max_requests_per_job`, together with `max_jobs=2`; without this option the defaults apply.
"""

import time
from collections.abc import Sequence
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MODEL
from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults


@step(inputs=["generation"], outputs=["seen_at"])
def Clock(inputs: StepInput):
    """Add the time at which a row arrives."""
    yield [row | {"seen_at": time.time()} for row in inputs]


@step(inputs=["instruction"], outputs=["generation"])
def Copy(inputs: StepInput):
    """Generate the instruction itself, in place of TextGeneration."""
    yield [row | {"generation": row["instruction"]} for row in inputs]


@step(inputs=["generations"], outputs=["ratings"])
def Judge(inputs: StepInput):
    """Rate each generation by its length, in place of UltraFeedback."""
    yield [row | {"ratings": [len(text) for text in row["generations"]]} for row in inputs]


@step(inputs=["generation"], outputs=["generations"])
def Pair(inputs: StepInput):
    """Pair the generation with the instruction, as input of UltraFeedback."""
    yield [row | {"generations": [row["generation"], row["instruction"]]} for row in inputs]


def _llm(options: dict[str, Any]) -> OpenAILLM:
    match options["kind"]:
        case "synchronous":
            return OpenAILLM(model=MODEL)
        case "offline":
            return OpenAILLM(
                model=MODEL, use_offline_batch_generation=True, offline_batch_generation_block_until_done=1
            )
    jobs = {"max_requests_per_job": options["per_job"], "max_jobs": 2} if "per_job" in options else {}
    return OpenAIBatchLLM(model=MODEL, min_poll_interval=0.1, **jobs)


def _build(options: dict[str, Any], rows: list[dict[str, str]]) -> None:
    """Add the steps to the pipeline whose context is entered."""
    if options["kind"] == "none":
        last = LoadDataFromDicts(data=rows) >> Copy(input_batch_size=50)
    elif options["kind"] == "stream":
        last = StreamBatchResults(task=TextGeneration(llm=_llm(options)), data=rows)
    else:
        last = LoadDataFromDicts(data=rows) >> TextGeneration(llm=_llm(options), input_batch_size=50)
    for number in range(1, options.get("tasks", 1)):
        earlier = "generation" if number == 1 else f"generation_{number - 1}"
        last = last >> TextGeneration(
            llm=_llm(options),
            input_batch_size=50,
            input_mappings={"instruction": earlier},
            output_mappings={"generation": f"generation_{number}", "model_name": f"model_name_{number}"},
        )
    if not options.get("judge"):
        last >> Clock(input_batch_size=50)
        return
    judge = Judge(input_batch_size=50) if options["kind"] == "none" else UltraFeedback(llm=_llm(options))
    last >> Pair(input_batch_size=50) >> judge


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Run the pipeline, and report the seconds from the call of `run` until rows reached the last step."""
    rows = [{"instruction": question} for question in workload.questions()]
    with Pipeline(name="benchmark", cache_dir=workload.folder) as pipeline:
        _build(workload.options, rows)
    started = time.time()
    with meter:
        dataset = pipeline.run(use_cache=False)["default"]["train"]
    meter.more["peak"] = meter.largest_peak
    seen = sorted(row["seen_at"] - started for row in dataset) if "seen_at" in dataset.column_names else []
    if seen:
        meter.more |= {"first": seen[0], "half": seen[len(seen) // 2], "last": seen[-1]}
    texts = dataset["generation"] if "generation" in dataset.column_names else [""] * len(dataset)
    return [], list(texts)


if __name__ == "__main__":
    run_contender(answer)
