"""Hashes of request bodies, from which every answer, id and time of the sandbox's model is derived."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

# Unix time of 2025-01-01 UTC, and the seconds of that year.
_YEAR_START = 1_735_689_600
_YEAR_SECONDS = 31_536_000


def canonical_json(body: Any) -> bytes:
    """Serialise a body with sorted keys and without spaces, so that equal requests give equal bytes."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def body_digest(serialised: bytes) -> str:
    """Return the SHA-256 of a body that `canonical_json` has serialised, in hexadecimal."""
    return hashlib.sha256(serialised).hexdigest()


def text_seed(*parts: object) -> int:
    """Return a 64-bit integer that is equal for equal parts; the number selects the text of an answer."""
    return int.from_bytes(hashlib.blake2b(canonical_json(parts), digest_size=8).digest(), "big")


def creation_time(digest: str) -> int:
    """Return the `created` field of an answer: a Unix time within 2025, a function of the body's digest."""
    return _YEAR_START + int(digest[:8], 16) % _YEAR_SECONDS
