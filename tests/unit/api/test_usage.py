"""Sums of billed tokens."""

from __future__ import annotations

from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage


def test_only_a_long_prompt_is_kept_by_itself():
    short, long = Usage.of_request(LONG_PROMPT, 1, 5), Usage.of_request(LONG_PROMPT + 1, 2)
    assert short == Usage(LONG_PROMPT, 1, 5)
    assert long.long_prompts == (Usage(LONG_PROMPT + 1, 2),)


def test_a_sum_keeps_each_long_prompt():
    long = Usage.of_request(LONG_PROMPT + 1, 2, 3)
    total = Usage.of_request(10, 20, 5) + long + long
    assert total.counts() == {"tokens_in": 2 * LONG_PROMPT + 12, "tokens_out": 24, "tokens_cached": 11}
    assert total.long_prompts == 2 * (Usage(LONG_PROMPT + 1, 2, 3),)
