"""autobatcher's `BatchOpenAI`, in the mode in which it makes batches."""

import asyncio
import sys
from collections.abc import Sequence

from autobatcher import BatchOpenAI
from loguru import logger
from openai.types.chat import ChatCompletion

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MAX_TOKENS, MODEL


async def _ask(task: Task, questions: Sequence[str]) -> list[ChatCompletion]:
    async with BatchOpenAI(
        api_key="sk-benchmark",
        base_url=task.base_url,
        batch_size=min(task.requests, task.options.get("batch_size", 50_000)),
        batch_window_seconds=1.0,
        poll_interval_seconds=0.1,
        completion_window="24h",
    ) as client:
        return await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": question}], max_tokens=MAX_TOKENS
                )
                for question in questions
            )
        )


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """A `create` for each question, all side by side."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    questions = task.questions()
    with meter:
        outputs = asyncio.run(_ask(task, questions))
    return outputs, [output.choices[0].message.content for output in outputs]


if __name__ == "__main__":
    measured(answer)
