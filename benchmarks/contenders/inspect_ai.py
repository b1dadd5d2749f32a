"""Driver of inspect_ai: the batch mode of its models."""

import asyncio
from collections.abc import Sequence

import anyio
from inspect_ai.model import BatchConfig, GenerateConfig, ModelOutput, get_model

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MAX_TOKENS, MODEL


async def _complete(workload: Workload, questions: Sequence[str]) -> list[ModelOutput]:
    batch = BatchConfig(
        size=min(workload.requests, workload.options.get("batch_size", 50_000)), tick=0.1, send_delay=0.1
    )
    config = GenerateConfig(max_connections=workload.requests, max_tokens=MAX_TOKENS, batch=batch)
    model = get_model(
        f"openai/{MODEL}", base_url=workload.base_url, api_key="sk-benchmark", responses_api=False, config=config
    )
    outputs: list[ModelOutput] = [None] * len(questions)  # type: ignore[list-item]

    async def generate(index: int) -> None:
        outputs[index] = await model.generate(questions[index])

    async with anyio.create_task_group() as task_group:
        for index in range(len(questions)):
            task_group.start_soon(generate, index)
    return outputs


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions with one concurrent `generate` per question."""
    questions = workload.questions()
    with meter:
        outputs = asyncio.run(_complete(workload, questions))
    return outputs, [output.completion for output in outputs]


if __name__ == "__main__":
    run_contender(answer)
