"""Outlines of bodies, and the parts in which two bodies differ."""

from __future__ import annotations

import orjson
import pytest

from distilabel_openai_batch.api.body_outline import describe_difference, dump_outline, load_outline, outline_body

BODY = {
    "model": "gpt-6-luna",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}],
    "temperature": 0.7,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a" * 100}},
}


def outline(**fields) -> dict[str, str]:
    return outline_body(orjson.dumps({**BODY, **fields}))


def chat(system: str, user: str = "Why is the sky blue?") -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def test_an_outline_has_no_text_of_a_prompt():
    text = dump_outline(outline(prompt="Secret.", input=["Secret."]))
    assert not any(word in text for word in ("brief", "sky", "Secret"))
    assert load_outline(text) == outline(prompt="Secret.", input=["Secret."])


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"null"])
def test_a_text_that_is_no_body_has_no_parts(body):
    assert outline_body(body) == {}


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"model": "gpt-6-sol"}, 'model differs: "gpt-6-luna" → "gpt-6-sol"'),
        ({"temperature": 1.0}, "temperature differs: 0.7 → 1.0"),
        ({"top_p": 0.5}, "top_p differs: none → 0.5"),
        ({"response_format": {"type": "json_object"}}, "response_format differs"),
        ({"messages": chat("Be long.")}, "system_prompt differs"),
        ({"messages": chat("Be brief.", "Why is grass green?")}, "user_prompt differs"),
        ({"messages": chat("Be long.", "Why is grass green?")}, "system_prompt differs"),
        ({"messages": chat("Be long."), "temperature": 1.0}, "system_prompt differs, temperature differs: 0.7 → 1.0"),
        ({"messages": BODY["messages"] + [{"role": "assistant", "content": "It"}]}, "assistant messages differs"),
        ({"messages": "no list"}, "system_prompt differs"),
    ],
)
def test_the_differing_parts_are_described(fields, difference):
    """Rows differ in the user's prompt, which counts only if there is no other difference."""
    assert describe_difference([outline()], [outline(**fields)]) == difference


def test_the_input_of_a_response_is_read_as_a_chat():
    first, second = (outline_body(orjson.dumps({"input": chat(system)})) for system in ("Be brief.", "Be long."))
    assert describe_difference([first], [second]) == "system_prompt differs"


def test_the_most_similar_requests_are_compared():
    """The rounds of a Task have different messages, and the rows may have another order."""
    rounds = [outline(messages=chat("Judge.", "An answer.")), outline()]
    later = [outline(messages=chat("Judge.", "A row."), model="b"), outline(model="b")]
    assert describe_difference(rounds, later) == 'model differs: "gpt-6-luna" → "b"'


def test_nothing_is_known_without_an_earlier_outline():
    assert describe_difference([], [outline()]) == ""
