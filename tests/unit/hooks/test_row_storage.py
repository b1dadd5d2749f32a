"""Whether JSON keeps rows as they are."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.hooks.row_storage import survives_json

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers(0, 9) | st.text(), inner)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_what_survives_is_written_as_before(value):
    """And what does not is not."""
    kept = orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    assert survives_json(value) == (repr(kept) == repr(value))


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, (1,), [(1,)], {"a": {1: 2}}, date(1969, 7, 20), np.ones(2), np.float64(1.5), {1}]
)
def test_json_changes_some_values(value):
    """However deep they lie."""
    assert not survives_json(value)
    assert not survives_json([{"a": value}])
