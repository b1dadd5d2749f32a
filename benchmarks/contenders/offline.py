"""distilabel's own way to use the Batch API."""

from collections.abc import Sequence

from distilabel.models.llms import OpenAILLM

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MODEL


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """As a Task's `process` would ask it; the shortest pause that it takes is a second."""
    llm = OpenAILLM(model=MODEL, use_offline_batch_generation=True, offline_batch_generation_block_until_done=1)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in task.questions()]
    with meter:
        outputs = llm.generate_outputs(inputs)
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    measured(answer)
