"""Billed tokens of the prompt cache."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.sandbox.model.answers import ModelAnswer
from distilabel_openai_batch.sandbox.model.prompt_cache import PromptCache


def bill(cache: PromptCache, model: str, text: str, tokens: int, word: str = "prompt") -> tuple[int, int]:
    """Return the tokens read and written for a prompt."""
    answer = ModelAnswer(200, {"usage": {f"{word}_tokens": tokens, f"{word}_tokens_details": {"audio_tokens": 0}}})
    details = cache.bill({"messages": text}, model, answer).body["usage"][f"{word}_tokens_details"]
    assert details["audio_tokens"] == 0
    return details.get("cached_tokens", 0), details.get("cache_write_tokens", 0)


@pytest.mark.parametrize("word", ["prompt", "input"])
def test_the_prefix_of_a_long_prompt_is_written_once_and_read_later(word):
    cache = PromptCache()
    assert bill(cache, "gpt-6-luna", "x" * 4_800, 1_200, word) == (0, 1_200)
    assert bill(cache, "gpt-6-luna", "x" * 4_800 + "y" * 800, 1_400, word) == (1_024, 376)
    assert bill(cache, "gpt-6-luna", "z" * 4_800, 1_200, word) == (0, 1_200)
    assert bill(cache, "gpt-6.1-sol", "x" * 4_800, 1_200, word) == (0, 1_200)


def test_writes_of_older_models_and_short_prompts_are_not_billed():
    cache = PromptCache()
    assert bill(cache, "gpt-5.5", "x" * 4_800, 1_200) == (0, 0)
    assert bill(cache, "gpt-5.5", "x" * 4_800, 1_200) == (1_024, 0)
    assert bill(cache, "gpt-6-luna", "y" * 40, 10) == bill(cache, "gpt-6-luna", "y" * 40, 10) == (0, 0)
