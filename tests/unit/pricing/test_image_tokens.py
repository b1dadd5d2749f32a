"""Tests of `pricing.image_tokens`, with the examples of OpenAI's documentation."""

from __future__ import annotations

import base64
import struct

import pytest

from distilabel_openai_batch.pricing.image_tokens import bound_image_tokens

URL = "https://example.com/photo.jpg"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


def jpeg(width: int, height: int) -> bytes:
    """Return a JPEG with an APP1 segment, as cameras write, before the frame header."""
    exif = b"\xff\xe1" + struct.pack(">H", 50_002) + bytes(50_000)
    return b"\xff\xd8" + exif + b"\xff\xc2\0\x11\x08" + struct.pack(">HH", height, width) + bytes(20)


IMAGES = {
    "png": png,
    "jpeg": jpeg,
    "gif": lambda width, height: b"GIF89a" + struct.pack("<HH", width, height),
    "webp lossy": lambda width, height: b"RIFF....WEBPVP8 " + bytes(10) + struct.pack("<HH", width, height),
    "webp lossless": lambda width, height: (
        b"RIFF....WEBPVP8L....\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    ),
    "webp extended": lambda width, height: (
        b"RIFF....WEBPVP8X" + bytes(8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    ),
}


def data_url(content: bytes) -> str:
    return f"data:image/any;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1_024, 1_024), "high", 765),
        ("gpt-4o-2024-11-20", (2_048, 4_096), "high", 1_105),
        ("gpt-4o", (4_096, 8_192), "low", 85),
        ("gpt-4o-mini", (512, 512), None, 2_833 + 5_667),
        ("ft:gpt-4o-mini:acme::x", (512, 512), None, 2_833 + 5_667),
        ("openai/gpt-4.1", (512, 512), "auto", 255),
        ("o3", (512, 512), None, 225),
        ("gpt-5", (512, 512), None, 210),
        ("gpt-5-2025-08-07", (512, 512), None, 210),
        ("gpt-5-mini", (1_024, 1_024), "low", 1_659),
        ("gpt-4.1-nano", (1_024, 1_024), None, 2_520),
        ("o4-mini", (1_800, 2_400), None, 2_642),
        ("gpt-5.2", (4_032, 3_024), None, 1_844),
        ("gpt-5.4", (4_032, 3_024), "high", 3_000),
        ("gpt-5.5", (4_032, 3_024), None, 12_000),
        ("gpt-6-luna", (4_032, 3_024), "auto", 14_364),
        ("gpt-6.1-sol", (4_032, 3_024), "high", 3_000),
        ("gpt-6-astra", (4_032, 3_024), "low", 308),
        ("my-deployment", (512, 512), None, None),
        ("claude-opus-5", (512, 512), None, None),
    ],
)
def test_an_image_counts_by_the_rule_of_its_model(model, size, detail, tokens):
    assert bound_image_tokens(model, {"url": data_url(png(*size)), "detail": detail}) == tokens


@pytest.mark.parametrize("kind", IMAGES)
def test_the_size_is_read_from_each_format(kind):
    assert bound_image_tokens("gpt-6-luna", data_url(IMAGES[kind](640, 320))) == 240


@pytest.mark.parametrize(
    "image",
    [URL, {"url": URL}, {"url": None}, {}, None, 7, "data:image/png;base64,!", data_url(b""), data_url(b"\xff\xd8")]
    + [data_url(image(640, 320)[:9]) for image in IMAGES.values()]
    + [data_url(png(0, 0))],
)
def test_an_image_of_unknown_size_counts_as_the_largest(image):
    assert bound_image_tokens("gpt-4o", image) == 85 + 8 * 170
    assert bound_image_tokens("gpt-6-luna", image) == 36_000
