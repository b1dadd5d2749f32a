"""Driver of distilabel's offline batch generation, its own use of the Batch API."""

from collections.abc import Sequence

from distilabel.models.llms import OpenAILLM

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MODEL


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions with one call, like a Task; distilabel's shortest pause between polls is a second."""
    llm = OpenAILLM(model=MODEL, use_offline_batch_generation=True, offline_batch_generation_block_until_done=1)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in workload.questions()]
    with meter:
        outputs = llm.generate_outputs(inputs)
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    run_contender(answer)
