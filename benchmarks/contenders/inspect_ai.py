"""inspect_ai's batch mode."""

import asyncio
from collections.abc import Sequence

import anyio
from inspect_ai.model import BatchConfig, GenerateConfig, ModelOutput, get_model

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MAX_TOKENS, MODEL


async def _ask(task: Task, questions: Sequence[str]) -> list[ModelOutput]:
    batch = BatchConfig(size=min(task.requests, task.options.get("batch_size", 50_000)), tick=0.1, send_delay=0.1)
    config = GenerateConfig(max_connections=task.requests, max_tokens=MAX_TOKENS, batch=batch)
    model = get_model(
        f"openai/{MODEL}", base_url=task.base_url, api_key="sk-benchmark", responses_api=False, config=config
    )
    outputs: list[ModelOutput] = [None] * len(questions)  # type: ignore[list-item]

    async def ask(index: int) -> None:
        outputs[index] = await model.generate(questions[index])

    async with anyio.create_task_group() as task_group:
        for index in range(len(questions)):
            task_group.start_soon(ask, index)
    return outputs


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """A `generate` for each question, all side by side."""
    questions = task.questions()
    with meter:
        outputs = asyncio.run(_ask(task, questions))
    return outputs, [output.completion for output in outputs]


if __name__ == "__main__":
    measured(answer)
