"""Answers of `/v1/images/generations`: small images of one colour."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from .checks import get_parameter
from .hashing import creation_time, text_seed
from .tokens import count_tokens

# Tokens of a square image of low quality, https://platform.openai.com/docs/guides/image-generation#cost-and-latency.
_TOKENS_PER_IMAGE = 272
_SIDE = 8


def image_list(body: dict[str, Any], digest: str) -> dict[str, Any]:
    """Return the body of an answer with `n` images in base64.

    Args:
        body: body of the request, already checked.
        digest: SHA-256 of the body, in hexadecimal.
    """
    count = get_parameter(body, "n", 1)
    seed = text_seed(body["prompt"])
    images = [{"b64_json": base64.b64encode(_png((seed + index) % 2**24)).decode()} for index in range(count)]
    prompt_tokens, image_tokens = count_tokens(body["prompt"]), _TOKENS_PER_IMAGE * count
    return {
        "created": creation_time(digest),
        "background": "opaque",
        "output_format": "png",
        "quality": get_parameter(body, "quality", "low"),
        "size": get_parameter(body, "size", "1024x1024"),
        "data": images,
        "usage": {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": prompt_tokens},
            "output_tokens": image_tokens,
            "output_tokens_details": {"image_tokens": image_tokens, "text_tokens": 0},
            "total_tokens": prompt_tokens + image_tokens,
        },
    }


def _png(colour: int) -> bytes:
    """Return a PNG image whose pixels all have one colour, 24 bits of red, green and blue."""
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    pixels = (b"\0" + colour.to_bytes(3, "big") * _SIDE) * _SIDE
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
