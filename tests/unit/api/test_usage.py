"""Sums of billed tokens."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.usage import LONG_PROMPT, NO_DETAILS, Usage, read_tokens, read_usage


def test_only_a_long_prompt_is_kept_by_itself():
    short, long = Usage.of_request(LONG_PROMPT, 1, 5), Usage.of_request(LONG_PROMPT + 1, 2)
    assert short == Usage(LONG_PROMPT, 1, 5)
    assert long.long_prompts == (Usage(LONG_PROMPT + 1, 2),)


def test_a_sum_keeps_each_long_prompt():
    long = Usage.of_request(LONG_PROMPT + 1, 2, 3)
    total = Usage.of_request(10, 20, 5) + long + long
    assert total.counts() == {
        "tokens_in": 2 * LONG_PROMPT + 12,
        "tokens_out": 24,
        "tokens_cached": 11,
        "tokens_written": 0,
        "tokens_reasoning": 0,
    }
    assert total.long_prompts == 2 * (Usage(LONG_PROMPT + 1, 2, 3),)


@pytest.mark.parametrize(
    ("usage", "tokens", "details"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5}, (9, 5), NO_DETAILS),
        ({"input_tokens": 9, "output_tokens": 5}, (9, 5), NO_DETAILS),
        (
            {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 4},
            },
            (9, 5),
            (3, 2, 4),
        ),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": None}}, (9, 0), NO_DETAILS),
        ({"prompt_tokens": 9, "prompt_tokens_details": [7]}, (9, 0), NO_DETAILS),
        ({"prompt_tokens": "9", "completion_tokens": -1, "completion_tokens_details": 4}, (0, 0), NO_DETAILS),
        (None, (0, 0), NO_DETAILS),
        ([], (0, 0), NO_DETAILS),
    ],
)
def test_both_spellings_of_a_usage_are_read_and_senseless_numbers_are_zero(usage, tokens, details):
    assert read_tokens(usage) == (tokens, details)
    assert read_usage(usage) == (Usage(*tokens, *details) if any(tokens) else None)


def test_the_tokens_beyond_another_usage_are_never_negative():
    assert Usage(10, 2, 3).beyond(Usage(4, 5, 1)) == Usage(6, 0, 2)
