"""distilabel's `OpenAILLM`: one call for each question."""

from collections.abc import Sequence

from distilabel.models.llms import OpenAILLM

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MODEL

_AT_ONCE = 50
"""distilabel's default `input_batch_size`: so many calls are made side by side."""


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """As a Task's `process` would ask it, group by group."""
    llm = OpenAILLM(model=MODEL)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in task.questions()]
    outputs = []
    with meter:
        for start in range(0, len(inputs), _AT_ONCE):
            outputs += llm.generate_outputs(inputs[start : start + _AT_ONCE])
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    measured(answer)
