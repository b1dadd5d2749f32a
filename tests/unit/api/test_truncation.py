"""Answers that the token limit cut."""

from __future__ import annotations

import json

import pytest

from distilabel_openai_batch.api.outcomes import Answer, parse_result_line
from distilabel_openai_batch.api.truncation import count_reasoning_tokens, find_cut_choices, has_spent_choice


def choice(text: str | None, finish_reason: str = "stop") -> dict:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}


@pytest.mark.parametrize(
    ("choices", "cut", "is_spent"),
    [
        ([choice("All.")], [], False),
        ([choice("Half", "length")], [0], False),
        ([choice("All."), choice("Half", "length")], [1], False),
        ([choice("", "length"), choice("Half", "length")], [1], True),
        ([choice('The field is called "length".')], [], False),
        ([{"text": "Half", "finish_reason": "length"}], [0], False),
        (None, [], False),
    ],
)
@pytest.mark.parametrize("more", [{}, {"usage": {}}], ids=["other", "plain"])
def test_cut_and_spent_choices_are_found(choices, cut, is_spent, more):
    answer = Answer.of({"choices": choices, **more})

    assert find_cut_choices(answer) == cut
    assert has_spent_choice(answer) is is_spent


def test_cut_choice_is_found_in_a_body_that_is_a_json_string():
    body = json.dumps({"choices": [choice("Half", "length")]}, indent=1)
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()

    _, answer = parse_result_line(line)

    assert find_cut_choices(answer) == [0]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"completion_tokens_details": {"reasoning_tokens": 7}}, 7), ({"completion_tokens_details": None}, 0), (None, 0)],
)
def test_reasoning_tokens_are_counted(usage, tokens):
    assert count_reasoning_tokens(Answer.of({"usage": usage})) == tokens
