"""Answers of `/v1/moderations`."""

from __future__ import annotations

import re
from typing import Any

from .hashing import text_seed

# https://platform.openai.com/docs/guides/moderation#content-classifications
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
# Starts of the categories for which images count too.
_IMAGE_CATEGORIES = ("self-harm", "violence")
# Words by which the sandbox flags a text, and the category of each.
_FLAGGING_WORDS = {"hate": "hate", "idiot": "harassment", "kill": "violence", "steal": "illicit"}


def moderation(body: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the body of a moderation: one result for each text, or one for a list of parts.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body, in hexadecimal.
    """
    value = body["input"]
    texts = value if isinstance(value, list) and all(isinstance(text, str) for text in value) else [value]
    model = body.get("model", "omni-moderation-latest")
    return {"id": f"modr-{digest[:29]}", "model": model, "results": [_result(text) for text in texts]}


def _result(value: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": value}] if isinstance(value, str) else value
    text = " ".join(str(part.get("text", "")) for part in parts)
    flagged = {_FLAGGING_WORDS[word] for word in re.findall(r"\w+", text.lower()) if word in _FLAGGING_WORDS}
    seed = text_seed(text)
    kinds = {"image" if part.get("type") == "image_url" else "text" for part in parts}
    return {
        "flagged": bool(flagged),
        "categories": {name: name in flagged for name in _CATEGORIES},
        "category_scores": {
            name: round(0.9 if name in flagged else (seed >> place) % 1_000 / 1e5, 6)
            for place, name in enumerate(_CATEGORIES)
        },
        "category_applied_input_types": {
            name: sorted(kinds if name.startswith(_IMAGE_CATEGORIES) else kinds - {"image"}) for name in _CATEGORIES
        },
    }
