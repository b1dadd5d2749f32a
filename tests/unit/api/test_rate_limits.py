"""Rate limits in the headers of replies."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.rate_limits import RateLimits, read_duration, read_rate_limits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("1h2m3.5s", 3_723.5),
        ("12ms", 0.012),
        ("1m", 60),
        ("1s5ms", 1.005),
        ("17", 17),
        ("0", 0),
        ("", None),
        (None, None),
        ("soon", None),
        ("1.2.3s", None),
        ("-1", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_durations_of_headers_are_read(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({}, RateLimits()),
        ({"remaining-requests": "5", "reset-requests": "1s"}, RateLimits(5)),
        ({"remaining-requests": "0", "reset-requests": "2s"}, RateLimits(0, 2)),
        (
            {"remaining-requests": "0", "reset-requests": "2s", "remaining-tokens": "0", "reset-tokens": "5s"},
            RateLimits(0, 5),
        ),
        ({"remaining-tokens": "0"}, RateLimits()),
        ({"remaining-requests": "many", "reset-requests": "2s"}, RateLimits()),
        ({"remaining-requests": "-1"}, RateLimits()),
        ({"remaining-requests": "9" * 5_000}, RateLimits()),
    ],
)
def test_a_limit_without_rest_asks_for_a_pause(headers, limits):
    assert read_rate_limits({f"x-ratelimit-{name}": value for name, value in headers.items()}) == limits
