"""Spellings of the same server."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.addresses import is_same_server

LOCAL = "http://localhost:8000/v1/"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LOCAL, "http://127.0.0.1:8000/v1/"),
        (LOCAL, "http://[::1]:8000/v1/"),
        (LOCAL, "HTTP://LocalHost:8000/v1"),
        (LOCAL, "http://localhost:8000//v1//"),
        (LOCAL, "http://user:password@localhost:8000/v1/"),
        ("https://api.openai.com/v1/", "https://API.openai.com:443/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com./v1"),
        ("http://example.com/", "http://example.com:80"),
        ("no address", "no address"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_spellings_of_the_same_server(one, other):
    assert is_same_server(one, other)
    assert is_same_server(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LOCAL, "https://localhost:8000/v1/"),
        (LOCAL, "http://localhost:8001/v1/"),
        (LOCAL, "http://localhost:8000/V1/"),
        (LOCAL, "http://localhost:8000/v2/"),
        (LOCAL, "http://127.0.0.2:8000/v1/"),
        (LOCAL, "http://localhost:8000/v1/?deployment=a"),
        ("https://api.openai.com/v1/", "https://eu.api.openai.com/v1/"),
        ("http://[::1", "http://[::2"),
        ("http://a:x/", "http://a:y/"),
    ],
)
def test_addresses_that_may_name_different_servers(one, other):
    assert not is_same_server(one, other)
