"""Tokens of images in prompts, by the rules that OpenAI publishes. Pure functions.

https://platform.openai.com/docs/guides/images-vision#calculating-costs
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from distilabel_openai_batch.api.model_traits import base_model

_Size = tuple[int, int]

# Characters of an image's base64 that are searched for its size: headers of cameras stand before the size of a JPEG.
_HEADER_CHARACTERS = 400_000


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Rule of models that cut an image into tiles of 512 pixels.

    Attributes:
        base: tokens of each image.
        tile: tokens of each tile.
    """

    base: int
    tile: int

    def count(self, size: _Size | None, detail: str) -> int:
        """Return the tokens of an image; for an unknown size the largest number."""
        if detail == "low":
            return self.base
        # The shortest side of a scaled image has 768 pixels at most, and the longest side 2,048.
        width, height = size or (2_048, 768)
        scale = min(1.0, 2_048 / max(width, height))
        scale *= min(1.0, 768 / (min(width, height) * scale))
        return self.base + self.tile * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)


@dataclass(frozen=True, slots=True)
class _Patches:
    """Rule of models that cover an image with patches of 32 pixels.

    Attributes:
        multiplier: tokens of each patch.
        high: largest number of patches with the detail `high`; a larger image is scaled down.
        original: largest number of patches with the detail `original` or `auto`, or without a detail.
        has_low: whether the detail `low` scales an image down to 512 pixels.
    """

    multiplier: float
    high: int
    original: int
    has_low: bool = True

    def count(self, size: _Size | None, detail: str) -> int:
        """Return the largest number of tokens of an image: the exact number unless the image is scaled down."""
        limit = {"high": self.high, "low": 256 if self.has_low else self.high}.get(detail, self.original)
        patches = math.ceil(size[0] / 32) * math.ceil(size[1] / 32) if size else limit
        return math.ceil(min(patches, limit) * self.multiplier)


# The first pattern that matches counts. GPT-6 refuses images above 30,000 patches, and keeps the size of all others.
_RULES: tuple[tuple[re.Pattern[str], _Tiles | _Patches], ...] = (
    (re.compile(r"gpt-4o-mini"), _Tiles(2_833, 5_667)),
    (re.compile(r"(gpt-5|gpt-4\.1)-mini|gpt-5(\.\d)?-codex-mini"), _Patches(1.62, 1_536, 1_536, has_low=False)),
    (re.compile(r"(gpt-5|gpt-4\.1)-nano"), _Patches(2.46, 1_536, 1_536, has_low=False)),
    (re.compile(r"o4-mini"), _Patches(1.72, 1_536, 1_536, has_low=False)),
    (re.compile(r"(chatgpt-|gpt-)4o|gpt-4\.[15]|gpt-4-turbo"), _Tiles(85, 170)),
    (re.compile(r"o[13]\b"), _Tiles(75, 150)),
    (re.compile(r"gpt-5(\.1)?(-chat|-codex|-\d{4}|$)"), _Tiles(70, 140)),
    (re.compile(r"gpt-5\.[23]\b"), _Patches(1.2, 1_536, 1_536, has_low=False)),
    (re.compile(r"gpt-5\.\d"), _Patches(1.2, 2_500, 10_000)),
    (re.compile(r"gpt-[6-9]\b"), _Patches(1.2, 2_500, 30_000)),
)


def bound_image_tokens(model: str, image: object) -> int | None:
    """Return the largest number of tokens that an image may be billed.

    Args:
        model: the model's name in the request.
        image: the value of `image_url` in a part of a message: an address, or an object with `url` and `detail`.

    Returns:
        `None` for a model without a published rule. An image whose size is not in its address counts as the largest.
    """
    # A gateway may write its provider in front of the name: `openai/gpt-4o`.
    name = base_model(model).rpartition("/")[2]
    rule = next((rule for pattern, rule in _RULES if pattern.match(name)), None)
    if rule is None:
        return None
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, Mapping) else (image, None)
    return rule.count(_read_size(url) if isinstance(url, str) else None, str(detail))


def _read_size(url: str) -> _Size | None:
    """Return width and height, in pixels, of an image in a data URL; `None` if the URL does not contain them."""
    header, comma, content = url[:_HEADER_CHARACTERS].partition(";base64,")
    if not comma or not header.startswith("data:"):
        return None
    try:
        data = base64.b64decode(content[: len(content) // 4 * 4])
        size = _find_size(data)
    except (ValueError, struct.error, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _find_size(data: bytes) -> _Size | None:
    if data.startswith(b"\x89PNG"):
        return struct.unpack(">II", data[16:24])
    if data.startswith(b"GIF8"):
        return struct.unpack("<HH", data[6:10])
    if data.startswith(b"\xff\xd8"):
        return _find_jpeg_size(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _find_webp_size(data)
    return None


def _find_jpeg_size(data: bytes) -> _Size | None:
    """Return the size in the first frame header of a JPEG."""
    start = 2
    while data[start] == 0xFF:
        marker, length = data[start + 1], struct.unpack(">H", data[start + 2 : start + 4])[0]
        # Frame headers, without the tables and the extensions whose markers lie between.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[start + 5 : start + 9])
            return width, height
        start += 2 + length
    return None


def _find_webp_size(data: bytes) -> _Size | None:
    """Return the size in the first chunk of a WebP file: lossy, lossless, or extended."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        return width, height
    return None
