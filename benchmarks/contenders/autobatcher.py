"""Driver of autobatcher: `BatchOpenAI`."""

import asyncio
import sys
from collections.abc import Sequence

from autobatcher import BatchOpenAI
from loguru import logger
from openai.types.chat import ChatCompletion

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MAX_TOKENS, MODEL


async def _complete(workload: Workload, questions: Sequence[str]) -> list[ChatCompletion]:
    async with BatchOpenAI(
        api_key="sk-benchmark",
        base_url=workload.base_url,
        batch_size=min(workload.requests, workload.options.get("batch_size", 50_000)),
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


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions with one concurrent `create` per question."""
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    questions = workload.questions()
    with meter:
        outputs = asyncio.run(_complete(workload, questions))
    return outputs, [output.choices[0].message.content for output in outputs]


if __name__ == "__main__":
    run_contender(answer)
