"""What a batch has answered that no run of ours made, as a run would know it that asks the same questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Outcome, decode
from distilabel_openai_batch.api.requests import build_custom_id, digest_body
from distilabel_openai_batch.errors import OpenAIBatchError


async def read(api: BatchAPI, base_url: str, batch_id: str, directory: Path) -> tuple[Batch, list[tuple[str, Outcome]]]:
    """Finds out what a batch has answered that has ended.

    Args:
        api: the server.
        base_url: the server's address, as the scope has it.
        batch_id: the batch's.
        directory: for its files.

    Returns:
        The batch, and what became of its requests, by the `custom_id`s that a run would give them.

    Raises:
        OpenAIBatchError: the batch is under way, or nobody knows what it was asked.
        RunError: the server refuses or could not be reached.
    """
    batch = await api.retrieve(batch_id)
    if not batch.ended:
        raise OpenAIBatchError(f"Batch {batch_id} is {batch.status}. It can be adopted when it has ended.")
    if not batch.input_file_id:
        raise OpenAIBatchError(f"The server does not say what batch {batch_id} was asked.")
    path = directory / "input"
    await api.download(batch.input_file_id, path)
    names = _names(path, batch, base_url)
    results: dict[str, Outcome] = dict.fromkeys(names.values(), MISSING_RESULT)
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        path = directory / "results"
        await api.download(file_id, path)
        with path.open("rb") as file:
            results |= {
                names[decoded[0]]: decoded[1] for line in file if (decoded := decode(line)) and decoded[0] in names
            }
    return batch, list(results.items())


def _names(path: Path, batch: Batch, base_url: str) -> dict[str, str]:
    """What the requests of an input file are called there, and what a run calls the same questions."""
    names: dict[str, str] = {}
    asked: Counter[str] = Counter()
    for request in _requests(path):
        endpoint = batch.endpoint or str(request.get("url"))
        digest = digest_body(base_url, endpoint, orjson.dumps(request["body"]))
        names[request["custom_id"]] = build_custom_id(digest, asked[digest])
        asked[digest] += 1
    return names


def _requests(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                request = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if isinstance(request, dict) and isinstance(request.get("custom_id"), str) and "body" in request:
                yield request
