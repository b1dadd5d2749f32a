"""JSON encoding and decoding of values that orjson rejects."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given

from distilabel_openai_batch.api.encoding import (
    decode_json,
    encode_body,
    encode_canonical_json,
    encode_json,
    read_count,
)
from tests.support.sdk_bodies import SDK_BODIES
from tests.support.strategies import JSON


def endless_body() -> dict[str, object]:
    body: dict[str, object] = {}
    body["self"] = body
    return body


@pytest.mark.parametrize(
    "body",
    [
        {"x": object()},
        {"x": {1, 2}},
        {"x": "\ud800"},
        {"\ud800": 1},
        {(1, 2): "x"},
        {"x": b"bytes"},
        endless_body(),
    ],
    ids=["object", "set", "lone surrogate", "surrogate key", "key no text", "bytes", "endless"],
)
def test_a_body_that_json_cannot_hold_is_a_value_error_with_the_reason(body):
    with pytest.raises(ValueError, match=r"cannot be written as JSON: .+"):
        encode_body(body)


@pytest.mark.parametrize(("body", "written"), SDK_BODIES)
def test_values_that_only_the_sdk_writes_are_written_like_by_the_sdk(body, written):
    """Models are written without their defaults, numbers in any size, and keys as strings."""
    assert encode_body(body) == written.encode()


@given(JSON)
def test_encoded_values_are_decoded_unchanged(value):
    assert decode_json(encode_json(value)) == value
    assert decode_json(encode_canonical_json(value)) == value


def test_canonical_json_has_sorted_keys():
    """The slow path for large integers sorts too."""
    assert encode_canonical_json({"b": 1, "a": [{"d": 2, "c": 3}]}) == b'{"a":[{"c":3,"d":2}],"b":1}'
    assert encode_canonical_json({"b": 2**70, "a": 1}) == b'{"a":1,"b":1180591620717411303424}'


def test_json_of_the_json_module_is_decoded():
    assert decode_json(json.dumps("\ud83d")) == "\ud83d"
    assert decode_json(b"-Infinity") == -math.inf


@pytest.mark.parametrize("text", [b"", b"oops", b'{"a":', b"\xff", b"[" * 100_000])
def test_a_text_that_is_not_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".+"):
        decode_json(text)


@pytest.mark.parametrize(("value", "count"), [(7, 7), (0, 0), (None, 0), ("7", 0), (7.5, 0), ([], 0)])
def test_a_count_that_is_no_integer_is_0(value, count):
    assert read_count(value) == count
