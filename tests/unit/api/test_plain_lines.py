"""Reading of plain result lines, compared with the parsing of whole lines."""

from __future__ import annotations

import json
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.api import outcomes
from distilabel_openai_batch.api.outcomes import Answer, parse_result_line
from distilabel_openai_batch.api.plain_lines import read_plain_chats, read_plain_line
from distilabel_openai_batch.api.truncation import find_cut_choices
from tests.support.mutations import mutations, replaced

PLAIN = {
    "id": "batch_req_1",
    "custom_id": "a",
    "response": {
        "status_code": 200,
        "request_id": "req_1",
        "body": {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-6.1-terra",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"},
                {"index": 1, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "length"},
            ],
            "usage": {
                "prompt_tokens": 7,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            "error": None,
        },
    },
    "error": None,
}


def parse_whole(line: bytes):
    """Parse a line as if no line were plain."""
    with mock.patch.object(outcomes, "read_plain_line", return_value=None):
        return parse_result_line(line)


def values_of(result):
    """Return all values of an outcome, of which comparisons ignore some."""
    if result is None:
        return None
    custom_id, outcome = result
    if not isinstance(outcome, Answer):
        return custom_id, outcome
    return custom_id, outcome.line, outcome.tokens, tuple(outcome.token_details), outcome.is_whole


@pytest.mark.parametrize("choices", [1, 2])
def test_an_answer_as_documented_is_a_plain_line(choices):
    line = json.dumps(replaced(PLAIN, ("response", "body", "choices"), PLAIN["response"]["body"]["choices"][:choices]))

    assert read_plain_line(line.encode()) == ("a", (7, 5), (3, 2, 1), choices == 1)


@settings(max_examples=300)
@given(mutations(PLAIN))
@example((("response", "body", "output"), []))
@example((("response", "body", "usage", "input_tokens_details"), {"cached_tokens": 4}))
@example((("response", "body", "choices", 0, "finish_reason"), "length"))
@example((("response", "status_code"), 400))
def test_a_line_has_the_same_outcome_whether_the_line_is_plain(mutation):
    line = json.dumps(replaced(PLAIN, *mutation)).encode(errors="surrogatepass") + b"\n"

    assert values_of(parse_result_line(line)) == values_of(parse_whole(line))


@pytest.mark.parametrize("content", [b"\xff", b"\\ud800", b"\x01", b"\\x", b'Hello" x'])
def test_a_line_that_is_no_strict_json_is_not_plain(content):
    line = json.dumps(PLAIN).encode().replace(b"Hello", content)

    assert read_plain_line(line) is None
    assert values_of(parse_result_line(line)) == values_of(parse_whole(line))


ONE_CHOICE = replaced(PLAIN, ("response", "body", "choices"), PLAIN["response"]["body"]["choices"][:1])  # type: ignore[index]

LINES = st.sampled_from([PLAIN, ONE_CHOICE]).flatmap(
    lambda line: mutations(line).map(lambda mutation: json.dumps(replaced(line, *mutation)).encode())
)


@settings(max_examples=100)
@given(st.lists(LINES, min_size=1, max_size=3))
def test_texts_that_are_read_together_equal_texts_that_are_read_alone(lines):
    results = [result for line in lines if (result := parse_result_line(line))]
    texts = [outcome.line for _, outcome in results if isinstance(outcome, Answer)]
    assert read_plain_chats(texts) == [chat for text in texts for chat in read_plain_chats([text])]


@settings(max_examples=100)
@given(LINES)
def test_no_text_of_a_plain_chat_is_cut_unless_the_chat_tells_so(line):
    [chat] = read_plain_chats([line])
    if chat:
        choices = json.loads(line)["response"]["body"]["choices"]
        assert chat.is_limited is any(choice.get("finish_reason") == "length" for choice in choices)
        assert chat.is_limited or not find_cut_choices(Answer(line, (0, 0)))
