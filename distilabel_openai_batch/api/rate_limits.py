"""Rate limits that a server names in the headers of its replies. Pure functions.

OpenAI's headers: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_KINDS = ("requests", "tokens")

# A duration as Go prints it: `6m0s`, `1.5s`, `12ms`. Azure sends a bare number of seconds.
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
_UNIT_SECONDS = (3_600.0, 60.0, 1.0, 0.001)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rest of a server's rate limits after a reply.

    Attributes:
        remaining_requests: number of requests that the server still accepts; `None` if the server does not say.
        pause: seconds until the server accepts a request again; 0 if it accepts one now.
    """

    remaining_requests: int | None = None
    pause: float = 0.0


NO_RATE_LIMITS = RateLimits()
"""Rate limits of a reply without such headers."""


def read_rate_limits(headers: Mapping[str, str]) -> RateLimits:
    """Return the rate limits in the headers of a reply.

    Args:
        headers: the headers; their names may be in any case that the mapping accepts.
    """
    pause = 0.0
    for kind in _KINDS:
        if _read_count(headers.get(f"x-ratelimit-remaining-{kind}")) == 0:
            pause = max(pause, read_duration(headers.get(f"x-ratelimit-reset-{kind}")) or 0.0)
    return RateLimits(_read_count(headers.get("x-ratelimit-remaining-requests")), pause)


def read_duration(text: str | None) -> float | None:
    """Return the seconds of a duration (`6m0s`, `12ms`, `1.5`); `None` for a text without sense."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        match = _DURATION.fullmatch(text.strip())
        if match is None or not any(match.groups()):
            return None
        try:
            parts = zip(match.groups(), _UNIT_SECONDS, strict=True)
            seconds = sum(float(part) * unit for part, unit in parts if part)
        except ValueError:
            return None
    return seconds if 0 <= seconds < float("inf") else None


def _read_count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
