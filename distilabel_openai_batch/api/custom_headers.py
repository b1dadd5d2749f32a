"""Headers of calls from the environment and from the command line, beside `default_headers`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import openai

from distilabel_openai_batch.api.secrets import clean_headers
from distilabel_openai_batch.errors import InvalidSettingError

VARIABLE = "OPENAI_CUSTOM_HEADERS"
"""Environment variable with a header on each line, `NAME: VALUE`, as newer releases of the SDK read the variable."""

# Headers that hold the key: the SDK decides between the key and the variable.
_KEY_HEADERS = {"authorization", "api-key"}


def parse_headers(lines: Iterable[str], source: str) -> dict[str, str]:
    """Return headers by name from texts `NAME:VALUE`.

    Args:
        lines: the texts; empty texts are left out.
        source: the origin of the texts, for errors (`--header`).

    Raises:
        InvalidSettingError: a text has no colon, or HTTP has no such name or value. The message shows no value.
    """
    headers: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise InvalidSettingError(f"Header {number} of {source} has no colon. Write `NAME: VALUE`.")
        headers[name.strip()] = value
    return clean_headers(headers, source) or {}


def environment_headers() -> dict[str, str]:
    """Return the headers of `$OPENAI_CUSTOM_HEADERS` by name.

    Raises:
        InvalidSettingError: a line is no header. The message shows no value.
    """
    return parse_headers(os.getenv(VARIABLE, "").split("\n"), VARIABLE)


def merge_headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return headers in the spelling of the environment's headers, so that the SDK replaces these and sends one.

    Args:
        headers: headers by name, which take precedence over the environment's; `None` for no headers.
    """
    if headers is None:
        return None
    spellings = {name.lower(): name for name in environment_headers()}
    return {spellings.get(name.lower(), name): value for name, value in headers.items()}


def add_environment_headers(client: openai.AsyncOpenAI, headers: Mapping[str, str] | None) -> openai.AsyncOpenAI:
    """Return a client that sends the environment's headers too, whichever release of the SDK made the client.

    Args:
        client: a client with `headers`.
        headers: headers that take precedence; `None` for no headers.
    """
    replaced = {name.lower() for name in headers or {}} | _KEY_HEADERS
    sent = {name.lower(): value for name, value in client.default_headers.items()}
    missing = {
        name: value
        for name, value in environment_headers().items()
        if name.lower() not in replaced and sent.get(name.lower()) != value
    }
    return client.with_options(default_headers=missing) if missing else client
