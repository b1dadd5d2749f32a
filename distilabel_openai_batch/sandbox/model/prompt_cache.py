"""Prompt cache: the tokens of prompts that OpenAI reads from its cache or writes to its cache, and bills as such.

https://platform.openai.com/docs/guides/prompt-caching
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from .answers import ModelAnswer
from .hashing import canonical_json
from .reasoning import model_version
from .tokens import CHARACTERS_PER_TOKEN

# Shortest prompt that is cached, and the length of the prefix by which the sandbox finds a prompt again.
_PREFIX_TOKENS = 1_024
# First version whose writes to the cache are billed.
_WRITES_BILLED_FROM = (5, 6)


class PromptCache:
    """Prefixes of prompts that were answered before."""

    def __init__(self) -> None:
        self._prefixes: set[bytes] = set()
        self._lock = threading.Lock()

    def bill(self, body: dict[str, Any], model: str, answer: ModelAnswer) -> ModelAnswer:
        """Return an answer whose usage has the tokens that the cache read or wrote.

        Args:
            body: body of the request.
            model: name of the model that answered.
            answer: answer to the request.
        """
        usage = answer.body.get("usage", {})
        word = "input" if "input_tokens" in usage else "prompt"
        tokens = usage.get(f"{word}_tokens", 0)
        if answer.status != 200 or tokens < _PREFIX_TOKENS:
            return answer
        prompt = canonical_json({"prompt": body.get("messages", body.get("input", body.get("prompt")))})
        prefix = hashlib.sha256(model.encode() + prompt[: _PREFIX_TOKENS * CHARACTERS_PER_TOKEN]).digest()
        with self._lock:
            is_cached = prefix in self._prefixes
            self._prefixes.add(prefix)
        writes = tokens - _PREFIX_TOKENS if is_cached else tokens
        details = {
            **usage.get(f"{word}_tokens_details", {}),
            "cached_tokens": _PREFIX_TOKENS if is_cached else 0,
            "cache_write_tokens": writes if model_version(model) >= _WRITES_BILLED_FROM else 0,
        }
        return answer._replace(body={**answer.body, "usage": {**usage, f"{word}_tokens_details": details}})
