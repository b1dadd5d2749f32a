"""bespokelabs-curator's batch mode.

It uploads its input files without a name, which the sandbox refuses (they are not `.jsonl`): this driver gives them
one.
"""

import os
from collections.abc import Sequence
from typing import Any

os.environ |= {"TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

from bespokelabs import curator
from openai.resources.files import AsyncFiles

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MAX_TOKENS, MODEL

_create = AsyncFiles.create


async def _create_with_name(self: AsyncFiles, *, file: Any, **arguments: Any) -> Any:
    return await _create(self, file=("requests.jsonl", file) if isinstance(file, bytes) else file, **arguments)


AsyncFiles.create = _create_with_name  # type: ignore[method-assign]


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """One call with all questions; the shortest pause that it takes is a second."""
    llm = curator.LLM(
        model_name=MODEL,
        backend="openai",
        batch=True,
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": task.base_url,
            "batch_size": min(task.requests, task.options.get("batch_size", 50_000)),
            "batch_check_interval": 1,
            "max_retries": 1,
        },
    )
    questions = task.questions()
    with meter:
        response = llm(questions, working_dir=task.folder)
    rows = list(getattr(response, "dataset", response))
    return rows, [row["response"] for row in rows]


if __name__ == "__main__":
    measured(answer)
