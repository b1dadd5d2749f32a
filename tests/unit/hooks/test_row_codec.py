"""Tests of the codec of rows."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.hooks.row_codec import (
    UnsupportedValueError,
    decode_rows,
    encode_rows,
    survives_json,
)

OFFSETS = st.none() | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=OFFSETS)
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
VALUES = st.recursive(
    HASHABLE | st.frozensets(HASHABLE, max_size=1),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(st.just("$distilabel_openai_batch"), inner)
    ),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=3))
def test_rows_are_read_as_they_were_written(rows):
    """The types are kept too, at any depth."""
    assert repr(decode_rows(encode_rows(rows))) == repr(rows)


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.int64(7),
        np.bool_(True),
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.array([], dtype=float),
        np.array(["a", "long text"]),
        np.array(1.5),
        np.arange(6).reshape(2, 3).T,
    ],
)
def test_arrays_keep_their_type_and_shape(value):
    [read] = decode_rows(encode_rows([value]))
    assert type(read) is type(value)
    assert read.dtype == value.dtype
    np.testing.assert_array_equal(read, value)


class Custom:
    """A value of a class that a user wrote."""


@pytest.mark.parametrize(
    "value",
    [
        Custom(),
        np.array([Custom()]),
        datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Rome")),
        len,
        type("Text", (str,), {})("text"),
    ],
)
def test_values_of_other_types_are_refused(value):
    """A value that would be read as another type is not written."""
    with pytest.raises(UnsupportedValueError):
        encode_rows([{"value": [value]}])


def test_a_value_that_holds_itself_is_refused():
    row: dict = {}
    row["row"] = row
    with pytest.raises(UnsupportedValueError):
        encode_rows([row])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1",
        b'{"$distilabel_openai_batch": "os.system", "value": "ls"}',
        b'{"$distilabel_openai_batch": "ndarray", "value": ["|O", [1], "AAAAAAAAAAA="]}',
        b'{"$distilabel_openai_batch": "date", "value": {}}',
        b'{"$distilabel_openai_batch": "date"}',
        b'{"$distilabel_openai_batch": "Decimal", "value": "x"}',
        b'{"$distilabel_openai_batch": "UUID", "value": 1}',
    ],
)
def test_damaged_and_foreign_bytes_are_refused(data):
    """An array of objects would be read by pickle."""
    with pytest.raises(ValueError, match=r"damaged|JSON|unexpected|objects|EOF|empty|input"):
        decode_rows(data)


@given(VALUES)
def test_survives_json_agrees_with_json(value):
    try:
        kept = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:
        return
    assert survives_json(value) == (repr(kept) == repr(value))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        (1,),
        [(1,)],
        {"a": {1: 2}},
        date(1969, 7, 20),
        time(12),
        timedelta(1),
        Decimal(1),
        UUID(int=1),
        np.ones(2),
        np.float64(1.5),
        {1},
        2**64,
    ],
)
def test_values_that_json_changes_are_found_at_any_depth(value):
    assert not survives_json(value)
    assert not survives_json([{"a": value}])
