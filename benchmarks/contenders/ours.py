"""`OpenAIBatchLLM`, with its ledger."""

from collections.abc import Sequence

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MODEL
from distilabel_openai_batch import OpenAIBatchLLM


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """As a Task's `process` would ask it."""
    llm = OpenAIBatchLLM(model=MODEL, ledger_dir=f"{task.folder}/ledger", min_poll_interval=0.1)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in task.questions()]
    with meter:
        outputs = llm.generate_outputs(inputs)
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    measured(answer)
