"""JSON encoding and decoding, including values that orjson rejects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Write a request's body as JSON.

    Raises:
        ValueError: JSON cannot hold a value in the body; the text says why.
    """
    # orjson's result has kilobytes of spare memory, which a request would keep → copy it.
    return b"%b" % encode_json(body)


def encode_json(value: object) -> bytes:
    """Write a value as JSON.

    Raises:
        ValueError: JSON cannot hold the value; the text says why.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_slowly(value)


def encode_canonical_json(value: object) -> bytes:
    """Write a value as JSON with sorted keys, so that equal values have equal JSON.

    Raises:
        ValueError: JSON cannot hold the value; the text says why.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        plain_value = json.loads(_encode_slowly(value))
        return json.dumps(plain_value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def decode_json(text: bytes | str) -> Any:
    """Parse JSON, including the `json` module's extensions: lone surrogates, `NaN` and `Infinity`.

    Raises:
        ValueError: the text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


LARGEST_COUNT = 10**9
"""Number that no count of requests or tokens reaches.

An input file has at most 512 MB, and so fewer requests and fewer tokens. The sums of several billion such numbers fit
into SQLite's integers.
"""


def read_count(value: object) -> int:
    """Return `value` if it is an integer that a number of requests or tokens can be, and 0 otherwise."""
    return value if type(value) is int and 0 <= value < LARGEST_COUNT else 0


def _encode_slowly(value: object) -> bytes:
    """Write values that the SDK writes and orjson rejects: keys that are no strings, large integers, models."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return orjson.loads(orjson.dumps(value))
