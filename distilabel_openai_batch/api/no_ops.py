"""Parameters without effect: `OpenAILLM` always builds them, some servers refuse them, and digests include them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distilabel_openai_batch.api.responses import identify

# Parameters that `OpenAILLM` always sends, with the values that change nothing on any server. Some servers refuse the
# names with any value (https://console.groq.com/docs/openai#currently-unsupported-openai-features). A default such as
# `temperature: 1` is no such value: a server may have a default of its own.
_NO_OPS = (("logprobs", False), ("logprobs", None), ("top_logprobs", None), ("stop", None), ("echo", False))


def without_no_ops(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body without the parameters that change nothing, such as `logprobs: false`."""
    names = [name for name, value in _NO_OPS if name in body and body[name] is value]
    return {name: value for name, value in body.items() if name not in names} if names else body


def restore_identity(endpoint: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body whose digest identifies a request, for the body in an input file.

    Args:
        endpoint: the path of the endpoint.
        body: the body of any program.
    """
    return identify(body) if endpoint.endswith("/responses") else restore_no_ops(body)


def restore_no_ops(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an input file with the parameters that `OpenAILLM` had built and that were left out.

    Args:
        body: the body of any program. A body without `n`, which `OpenAILLM` always sends, stays unchanged.
    """
    restored = dict(body)
    if "n" not in body:
        return restored
    if "prompt" in body:
        return {"echo": False, "logprobs": None, **restored}
    if "messages" not in body:
        return restored
    restored.setdefault("top_logprobs", None)
    # A reasoning model refuses `logprobs`, so the parameter never was in its body.
    if "max_tokens" in body:
        restored.setdefault("logprobs", False)
    # `OpenAILLM` sends no `stop` if the first user's message has parts, which may be images.
    if not _has_parts(body["messages"]):
        restored.setdefault("stop", None)
    return restored


def _has_parts(messages: object) -> bool:
    for message in messages if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") == "user":
            return isinstance(message.get("content"), list)
    return False
