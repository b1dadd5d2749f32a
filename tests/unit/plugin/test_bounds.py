"""Bounds of numeric fields, in the constructor and among runtime parameters."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import (
    AzureOpenAIBatchLLM,
    InvalidParametersError,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
)
from distilabel_openai_batch.plugin.bounds import BOUNDS, OFFLINE_FIELD, check_number, find_not_finite
from tests.unit.plugin.stubs import CONNECTION, MESSAGES, batch_llm

CLASSES = [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings]
INFINITE = ["inf", "-inf", "nan", "1e400", math.inf, -math.inf, math.nan]


def numeric_types(annotation: object) -> set[type]:
    """Return the number types inside an annotation."""
    if annotation in (int, float):
        return {annotation}
    return set().union(*map(numeric_types, get_args(annotation)))


@pytest.mark.parametrize("model", CLASSES)
def test_each_numeric_field_has_bounds(model):
    """`dimensions` is a part of the request: the server knows its bounds."""
    numeric = {name for name, field in model.model_fields.items() if numeric_types(field.annotation) & {int, float}}
    assert numeric - {"dimensions", "generation_kwargs", "default_headers"} <= {*BOUNDS, OFFLINE_FIELD}
    assert BOUNDS.keys() - ({"flex_below"} if model is OpenAIBatchEmbeddings else set()) <= numeric


@pytest.mark.parametrize("value", INFINITE, ids=repr)
@pytest.mark.parametrize("name", [*BOUNDS, OFFLINE_FIELD])
def test_infinite_numbers_are_refused_everywhere(name, value):
    with pytest.raises(ValidationError, match=name):
        OpenAIBatchLLM(**CONNECTION, **{name: value})
    llm = OpenAIBatchLLM(**CONNECTION)
    with pytest.raises(ValidationError, match=name):
        llm.set_runtime_parameters({name: value})


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_numbers_out_of_bounds_are_refused_with_the_bounds(name, bounds):
    least, greatest = bounds
    assert check_number(name, greatest) == greatest
    assert check_number(name, None) is None
    for value in (least - 1, greatest + 1, 10**400):
        with pytest.raises(ValueError, match=f"`{name}` is .*at least {least:,} and at most {greatest:,}$"):
            check_number(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_bytes_per_job", 1),
        ("max_bytes_per_job", "999"),
        ("min_poll_interval", 1e300),
        ("max_poll_interval", 86_401),
        ("timeout", 0),
        ("timeout", -1),
        ("max_retries", -1),
        ("max_retries", 10**18),
        ("max_jobs", 10**30),
        ("deadline", 1e12),
        (OFFLINE_FIELD, -5),
        (OFFLINE_FIELD, 10**9),
    ],
)
def test_numbers_with_which_a_run_never_ends_are_refused(name, value):
    with pytest.raises(ValidationError, match=f"`{name}`"):
        OpenAIBatchLLM(**CONNECTION, **{name: value})


@pytest.mark.parametrize(
    ("kwargs", "place"),
    [
        ({"temperature": math.nan}, "temperature = nan"),
        ({"top_p": math.inf}, "top_p = inf"),
        ({"extra_body": {"a": [1.0, {"b": -math.inf}]}}, r"a\[1\].b = -inf"),
    ],
)
def test_infinite_generation_parameters_are_refused(kwargs, place):
    """JSON has no such numbers, and would send `null` for each row."""
    with pytest.raises(InvalidParametersError, match=place):
        batch_llm()[0].generate([MESSAGES], **kwargs)


def test_finite_values_have_no_such_place():
    assert find_not_finite({"a": [1, 2.0, {"b": "inf"}], "c": None, "d": True}) is None
