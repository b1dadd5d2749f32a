"""Read the results of a batch that was made elsewhere, under the `custom_id`s that a run gives the same requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.body_outline import outline_body
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.no_ops import restore_identity, without_no_ops
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Outcome, parse_result_line
from distilabel_openai_batch.api.requests import build_custom_id, digest_body
from distilabel_openai_batch.api.size_limits import INPUT_LIMIT, AnswerSizes
from distilabel_openai_batch.errors import OpenAIBatchError

# Requests whose outlines are read, to tell how they differ from a run's requests.
_OUTLINES = 20


@dataclass(frozen=True, slots=True)
class ExternalBatch:
    """Batch that was made elsewhere.

    Attributes:
        batch: the batch.
        outcomes: the outcome of each request by the `custom_id` that a run gives the request.
        outlines: outlines of the first requests, as the server received them.
    """

    batch: Batch
    outcomes: Mapping[str, Outcome]
    outlines: list[dict[str, str]]


async def read_results(api: BatchAPI, base_url: str, batch_id: str, directory: Path) -> ExternalBatch:
    """Download an ended batch's input and results.

    Args:
        api: Batch API of the batch's server.
        base_url: address of the server, as the scope has it.
        batch_id: id of the batch.
        directory: directory for the downloaded files.

    Raises:
        OpenAIBatchError: if the batch is in progress, or the server does not name its input file.
        RunError: if the server refuses a call or cannot be reached.
    """
    batch = await api.retrieve(batch_id)
    if not (batch.has_ended or batch.apparent_end):
        raise OpenAIBatchError(f"Batch {batch_id} is {batch.status}. It can be adopted when it has ended.")
    if not batch.input_file_id:
        raise OpenAIBatchError(f"The server names no input file of batch {batch_id}, so its requests are unknown.")
    batch = await api.wait_for_output_file(batch)
    assert batch.input_file_id
    path = directory / "input"
    await api.files.download(batch.input_file_id, path, INPUT_LIMIT)
    sizes = AnswerSizes()
    custom_ids = _custom_ids(path, batch, base_url, sizes)
    outlines = [
        outline_body(encode_body(without_no_ops(request["body"]))) for request in islice(_requests(path), _OUTLINES)
    ]
    outcomes: dict[str, Outcome] = dict.fromkeys(custom_ids.values(), MISSING_RESULT)
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        path = directory / "results"
        await api.files.download(file_id, path, sizes.limit(len(custom_ids)))
        with path.open("rb") as file:
            outcomes |= {
                custom_ids[result[0]]: result[1]
                for line in file
                if (result := parse_result_line(line)) and result[0] in custom_ids
            }
    return ExternalBatch(batch, outcomes, outlines)


def _custom_ids(path: Path, batch: Batch, base_url: str, sizes: AnswerSizes) -> dict[str, str]:
    """Return a run's `custom_id` of each request in an input file, by the request's `custom_id` in the file.

    Args:
        path: the input file.
        batch: the batch of the file.
        base_url: address of the server, as the scope has it.
        sizes: receives the largest answer that the requests can have.
    """
    custom_ids: dict[str, str] = {}
    occurrences: Counter[str] = Counter()
    for request in _requests(path):
        # A gateway may show one endpoint for all batches (litellm-docs pull request 1408) → prefer the request's own.
        endpoint = str(request.get("url") or batch.endpoint)
        body = request["body"]
        sizes.add(body)
        digest = digest_body(base_url, endpoint, encode_body(restore_identity(endpoint, body)))
        custom_ids[request["custom_id"]] = build_custom_id(digest, occurrences[digest])
        occurrences[digest] += 1
    return custom_ids


def _requests(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the requests of an input file; lines that are no request are skipped."""
    with path.open("rb") as file:
        for line in file:
            try:
                request = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            fields = (request.get("custom_id"), request.get("body")) if isinstance(request, dict) else (None, None)
            if isinstance(fields[0], str) and isinstance(fields[1], dict):
                yield request
