"""Plain text of the sandbox's model."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.sandbox.model.prose import _COMMON_WORDS, subjects, topic, write_prose

TEXTS = st.lists(
    st.sampled_from(
        [
            *("river", "RIVER", "the", "following", "don't", "foo_bar", "x9y", "a" * 20, "b" * 21, "c" * 45),
            *("Straße", "İstanbul", "naïve", "短い質問です", "²³", "{topic}", "{a}", "\n", "\x1c", "\u2028", "…"),
        ]
    )
    | st.text(max_size=30)
).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_subjects_are_the_longest_runs_of_letters(text):
    """Find the same words with and without letters beyond ASCII, and cut a run after 20 letters."""
    words = re.findall(r"[^\W\d_]{4,20}", text[:200].lower())
    rare = [word for word in dict.fromkeys(words) if word not in _COMMON_WORDS]
    expected = [*sorted(rare, key=len, reverse=True), "the question", "its context"][:2]
    assert list(subjects(text)) == expected


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(min_value=1, max_value=20))
def test_topic_has_the_first_words(text, number):
    """End with an ellipsis if more words follow within 400 characters."""
    words = text[:400].split()
    start = " ".join(words[:number])[:160].rstrip(" .?!:;,")
    ellipsis = " …" if len(words) > number else ""
    assert topic(text, number) == (f"{start}{ellipsis}" if start else "your request")


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(min_value=0, max_value=2**64), st.integers(min_value=1, max_value=900))
def test_text_for_a_limit_has_the_beginning_of_the_whole_text(text, seed, characters):
    """Leave out only characters beyond the limit."""
    whole = write_prose(text, seed)
    assert write_prose(text, seed, characters)[:characters] == whole[:characters]


@pytest.mark.parametrize("instruction", ["Describe {a} and {b} and {topic}.", "{b}"])
def test_braces_of_an_instruction_stay(instruction):
    """Insert the subjects into the sentences of the model alone."""
    for seed in range(40):
        assert instruction.rstrip(".") in write_prose(instruction, seed)
