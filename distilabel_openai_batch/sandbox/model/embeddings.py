"""Answers of `/v1/embeddings`."""

from __future__ import annotations

import base64
import hashlib
import math
from array import array
from typing import Any

from .checks import get_parameter
from .hashing import canonical_json
from .snapshots import snapshot_name
from .tokens import count_prompt_tokens

# Default lengths of vectors, https://platform.openai.com/docs/guides/embeddings.
_DIMENSIONS = {"text-embedding-3-large": 3_072}
_DEFAULT_DIMENSIONS = 1_536


def embedding_list(body: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the body of an embeddings reply: one vector per input.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body; not used, since the reply has no id.
    """
    value = body["input"]
    inputs = [value] if isinstance(value, str) or isinstance(value[0], int) else value
    dimensions = get_parameter(body, "dimensions", _DIMENSIONS.get(body["model"], _DEFAULT_DIMENSIONS))
    data = []
    for index, text in enumerate(inputs):
        vector: Any = _unit_vector(canonical_json(text), dimensions)
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(array("f", vector).tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = count_prompt_tokens("/v1/embeddings", body)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": snapshot_name(body["model"]), "usage": usage}


def _unit_vector(text: bytes, dimensions: int) -> list[float]:
    """Return a vector of length 1 that is derived from the text's hash."""
    numbers = array("h", hashlib.shake_256(text).digest(2 * dimensions))
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]
