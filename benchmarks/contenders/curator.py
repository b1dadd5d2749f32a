"""Driver of bespokelabs-curator: its batch mode.

Curator uploads input files without a name. The sandbox rejects names that do not end in `.jsonl`, so this driver adds a
name to each upload.
"""

import os
from collections.abc import Sequence
from typing import Any

os.environ |= {"TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

from bespokelabs import curator
from openai.resources.files import AsyncFiles

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MAX_TOKENS, MODEL

_create = AsyncFiles.create


async def _create_with_name(self: AsyncFiles, *, file: Any, **arguments: Any) -> Any:
    return await _create(self, file=("requests.jsonl", file) if isinstance(file, bytes) else file, **arguments)


AsyncFiles.create = _create_with_name  # type: ignore[method-assign]


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Answer the questions with one call; curator's shortest pause between polls is a second."""
    llm = curator.LLM(
        model_name=MODEL,
        backend="openai",
        batch=True,
        generation_params={"max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": workload.base_url,
            "batch_size": min(workload.requests, workload.options.get("batch_size", 50_000)),
            "batch_check_interval": 1,
            "max_retries": 1,
        },
    )
    questions = workload.questions()
    with meter:
        response = llm(questions, working_dir=workload.folder)
    rows = list(getattr(response, "dataset", response))
    return rows, [row["response"] for row in rows]


if __name__ == "__main__":
    run_contender(answer)
