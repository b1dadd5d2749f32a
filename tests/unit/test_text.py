"""Tests of `distilabel_openai_batch.text`."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.text import NAMES_SHOWN, did_you_mean, duration, plural, shortlist


@pytest.mark.parametrize(("number", "text"), [(0, "0 jobs"), (1, "1 job"), (2_000, "2,000 jobs")])
def test_plural_adds_an_s_unless_the_number_is_one(number, text):
    assert plural(number, "job") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (7_500, "2 h 05 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_duration_uses_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_did_you_mean_suggests_a_similar_name_only():
    assert did_you_mean("buget", ["model", "budget"]) == ". Did you mean `budget`?"
    assert did_you_mean("zyx", ["model", "budget"]) == "."


def test_shortlist_puts_similar_names_first_then_the_latest():
    names = ["p0", "judge", *(f"p{number}" for number in range(1, 8))]
    assert shortlist(names, "jugde") == "judge, p7, p6, p5, p4 and 4 more"
    assert shortlist(["a", "b", "a"], "") == "a, b"
    assert shortlist([], "a") == "none"
    assert shortlist(map(str, range(NAMES_SHOWN)), "").count(",") == NAMES_SHOWN - 1
