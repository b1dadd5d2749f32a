"""Driver of `OpenAIBatchLLM`, with its ledger."""

from collections.abc import Sequence

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MODEL
from distilabel_openai_batch import OpenAIBatchLLM


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions with one call, like the `process` of a Task."""
    llm = OpenAIBatchLLM(model=MODEL, ledger_dir=f"{workload.folder}/ledger", min_poll_interval=0.25)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in workload.questions()]
    with meter:
        outputs = llm.generate_outputs(inputs)
    return outputs, [output["generations"][0] for output in outputs]


if __name__ == "__main__":
    run_contender(answer)
