"""JSON in and out, for values that orjson refuses too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request's body as JSON.

    Raises:
        ValueError: it holds something that JSON cannot, with the reason.
    """
    # Copied: orjson leaves kilobytes behind what it returns, which a request would keep.
    return b"%b" % encode_json(body)


def encode_json(value: object) -> bytes:
    """Write a value as JSON.

    Raises:
        ValueError: JSON cannot hold the value.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_at_length(value)


def _encode_at_length(value: object) -> bytes:
    """What the SDK can write and orjson does not: keys that are no texts, numbers of more than 64 bits, models."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return orjson.loads(orjson.dumps(value))


def encode_canonical_json(value: object) -> bytes:
    """The same for the same value, however its keys are ordered."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        plain = json.loads(_encode_at_length(value))
        return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def decode_json(text: bytes | str) -> Any:
    """What JSON says, also where it is the JSON of `json`: halves of surrogate pairs, and numbers that are none.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_count(value: object) -> int:
    """Return `value` if it is an integer, and 0 otherwise."""
    return value if isinstance(value, int) else 0
