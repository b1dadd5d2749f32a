"""Export answers to JSONL or Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import AnswerEntry
from distilabel_openai_batch.replaced_file import replaced_file
from distilabel_openai_batch.text import escape_surrogates

_ROW_GROUP_SIZE = 5_000
"""Number of answers in one row group of a Parquet file: a few megabytes."""


def record(entry: AnswerEntry) -> dict[str, Any]:
    """Return the exported fields of an answer: its ids, model, texts, tokens, response, and times in seconds."""
    body = entry.answer.body
    tokens_in, tokens_out = entry.answer.tokens
    return {
        "custom_id": entry.custom_id,
        "batch_id": entry.batch_id,
        "model": str(body.get("model") or ""),
        "generations": list(_generations(body)),
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "response": entry.answer.received_body,
        "answered_at": entry.answered_at,
        "run_at": entry.run_at,
        "question": entry.question,
        "scope": entry.scope,
        "replaced": entry.is_replaced,
    }


def _generations(body: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield the text of each choice, `None` for a choice without text (a refusal). Embeddings have no choices."""
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        message = choice.get("message") if isinstance(choice, dict) else None
        text = message.get("content") if isinstance(message, dict) else None
        if text is None and isinstance(choice, dict):
            text = choice.get("text")
        yield text if isinstance(text, str) else None


def write_jsonl(entries: Iterable[AnswerEntry], file: BinaryIO) -> int:
    """Write a line for each answer and return the number of lines."""
    return sum(bool(file.write(_encode(record(entry)) + b"\n")) for entry in entries)


def _encode(value: object) -> bytes:
    """Return a value as JSON; lone surrogates, which an answer may hold, become escape sequences."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def write_parquet(entries: Iterable[AnswerEntry], file: BinaryIO) -> int:
    """Write a row for each answer, with `response` as JSON text, and return the number of rows.

    Raises:
        OpenAIBatchError: if pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise OpenAIBatchError("Parquet needs `pyarrow`. Install it: pip install pyarrow") from None
    schema = pyarrow.schema(
        {
            "custom_id": pyarrow.string(),
            "batch_id": pyarrow.string(),
            "model": pyarrow.string(),
            "generations": pyarrow.list_(pyarrow.string()),
            "tokens_in": pyarrow.int64(),
            "tokens_out": pyarrow.int64(),
            "response": pyarrow.string(),
            "answered_at": pyarrow.float64(),
            "run_at": pyarrow.float64(),
            "question": pyarrow.string(),
            "scope": pyarrow.string(),
            "replaced": pyarrow.bool_(),
        }
    )
    count, remaining = 0, iter(entries)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while records := [record(entry) for entry in islice(remaining, _ROW_GROUP_SIZE)]:
            for row in records:
                row["response"] = _encode(row["response"]).decode()
                row["model"] = escape_surrogates(row["model"])
                row["scope"] = escape_surrogates(row["scope"])
                row["question"] = row["question"] and escape_surrogates(row["question"])
                row["generations"] = [text and escape_surrogates(text) for text in row["generations"]]
            writer.write_table(pyarrow.Table.from_pylist(records, schema=schema))
            count += len(records)
    return count


_WRITERS = {".jsonl": write_jsonl, ".parquet": write_parquet}


def write(entries: Iterable[AnswerEntry], path: Path) -> int:
    """Write answers to a JSONL or Parquet file, by its suffix. The file is complete or not there at all.

    Returns:
        The number of answers in the file.

    Raises:
        OpenAIBatchError: if the file cannot be written.
    """
    if path.suffix not in _WRITERS:
        raise OpenAIBatchError(f"{path} cannot be written: its name has to end with {' or '.join(_WRITERS)}")
    try:
        with replaced_file(path) as file:
            return _WRITERS[path.suffix](entries, file)
    except OSError as error:
        raise OpenAIBatchError(f"{path} cannot be written: {error.strerror}") from None
