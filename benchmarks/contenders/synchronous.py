"""Driver of distilabel's `OpenAILLM`: one synchronous call per question."""

from collections.abc import Sequence

from distilabel.models.llms import OpenAILLM

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MODEL

_GROUP_SIZE = 50
"""Number of concurrent calls: distilabel's default `input_batch_size`."""


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions in groups, like the `process` of a Task."""
    llm = OpenAILLM(model=MODEL)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in workload.questions()]
    outputs = []
    with meter:
        for start in range(0, len(inputs), _GROUP_SIZE):
            outputs += llm.generate_outputs(inputs[start : start + _GROUP_SIZE])
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    run_contender(answer)
