"""Tests of `distilabel_openai_batch.text`."""

from __future__ import annotations

import json
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.text import (
    NAMES_SHOWN,
    did_you_mean,
    duration,
    escape_log_lines,
    message_kind,
    plural,
    printable,
    printable_json,
    shortlist,
    size,
)
from tests.support.hostile import HOSTILE_TEXTS, is_harmless


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


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=ascii)
def test_no_command_to_a_terminal_stays_in_a_printable_text(text):
    assert not is_harmless(text)
    assert is_harmless(printable(text))
    assert printable(printable(text)) == printable(text)


@given(st.text())
def test_printable_texts_can_be_encoded_and_have_no_control_characters(text):
    escaped = printable(text)
    escaped.encode()
    assert not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in escaped if character not in "\t\n"
    )


@pytest.mark.parametrize("text", ["", "plain", "two\nlines\t", "🛑 Größe 你好 שלום 👩‍💻", "\\x1b"])
def test_an_ordinary_text_stays_unchanged(text):
    assert printable(text) is text
    assert printable_json(text) is text


@given(st.recursive(st.text(), lambda children: st.lists(children) | st.dictionaries(st.text(), children)))
def test_printable_json_has_the_same_value(value):
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(printable_json(text)) == value
    assert is_harmless(printable_json(text))


@pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=ascii)
def test_a_log_line_is_printable_also_with_arguments(caplog, text):
    logger = escape_log_lines(escape_log_lines(logging.getLogger("hostile")))
    logger.warning(f"100 %: {text}")
    logger.warning("Batch %s has %d requests.", text, 3)
    assert caplog.messages == [printable(f"100 %: {text}"), printable(f"Batch {text} has 3 requests.")]
    assert len(logger.filters) == 1


@pytest.mark.parametrize(
    "messages",
    [
        [
            "This model's maximum context length is 128000 tokens. Your messages resulted in 138839 tokens.",
            "This model's maximum context length is 128,000 tokens. Your messages resulted in 1,138,839 tokens.",
        ],
        ["Invalid 'messages[17].content'.", "Invalid 'messages[3].content'."],
        ['Invalid "user\'s name".', 'Invalid "x".'],
        ["Request req_AbCdEf failed.", "Request req_zyxwv failed."],
        ["Batch 5b2f0f0e-52a1-4c7b-9c0e-2f9d7c1b2a3d.", "Batch 00000000-0000-4000-8000-abcdefabcdef."],
        ["Timeout while downloading https://a.example/x.png.", "Timeout while downloading https://b.example/y/z.png."],
        ["The image is 1.5 MB (0x1f), at 12:30:01.", "The image is 20 MB (0xff), at 2:30:01."],
        ["Bad tokens: [1, 2, 3]", "Bad tokens: [7]"],
        ["Bad word ‘a’ and “b” and `c`.", "Bad word ‘x y’ and “z” and `w`."],
    ],
)
def test_messages_that_differ_in_details_are_of_one_kind(messages):
    assert len(set(messages)) == 2
    assert len(set(map(message_kind, messages))) == 1


def test_messages_with_other_words_are_of_other_kinds():
    """An apostrophe inside a word opens no quotation."""
    messages = ["It can't be read: it isn't JSON.", "It can't be sent: it isn't JSON.", "Bad request.", "Bad image."]
    assert len(set(map(message_kind, messages))) == len(messages)


@pytest.mark.parametrize("part", ["'", '"', "a", "1", "*", "-", "1 ", "req_", "http://"])
def test_a_long_message_is_reduced_without_delay(part):
    """Only the beginning counts, so that a server that quotes prompts cannot slow a run down."""
    assert len(message_kind(part * 1_000_000)) <= 1_000


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (54_321, "54.3 kB"), (200_000_000, "200.00 MB")],
)
def test_size_has_the_unit_that_fits(number, expected):
    assert size(number) == expected
