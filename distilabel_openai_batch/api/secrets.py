"""Secrets of the calls to one server: checks of keys and headers, and masks of texts."""

from __future__ import annotations

import html
import json
import logging
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus
from urllib.request import getproxies

import httpx

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.errors import InvalidSettingError

# Parts of names of headers and of query parameters whose value is a secret: `Authorization`, `X-API-Key`, `Cookie`, …
# The gateway Portkey has its name in all its headers, such as `x-portkey-provider`.
_SECRET_NAME = re.compile(
    r"auth|(?<!port)key|token|secret|passw|pwd|cookie|credential|signature|session|jwt|bearer|^(sig|code)$",
    re.IGNORECASE,
)

# A header's name, https://www.rfc-editor.org/rfc/rfc9110#name-tokens
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# Tokens of Microsoft Entra ID, which change in a run, and other JSON Web Tokens. https://www.rfc-editor.org/rfc/rfc7519
_WEB_TOKEN = r"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"  # noqa: S105

# Characters of a secret other than the API key: a shorter value is guessed at once, and its mask would garble texts.
_SHORTEST_SECRET = 4

_MASK = "***"


def clean_key(key: str, source: str) -> str:
    """Return an API key without the white space around it.

    Args:
        key: the key as the user set it; a file or a copied text often adds a line feed.
        source: the noun for the key in the error ("The API key of OpenAIBatchLLM").

    Raises:
        InvalidSettingError: the key contains a character that no HTTP header can carry. The text does not show the key.
    """
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidSettingError(
            f"{source} contains {_kind_of_character(key)}, which no key has. Set it to the key only, without quotes,"
            " line breaks or other characters around it."
        )
    return key


def clean_headers(headers: Mapping[str, str] | None, source: str = "default_headers") -> dict[str, str] | None:
    """Return headers without the white space around their values.

    Args:
        headers: values by name; `None` for no headers.
        source: the origin of the headers, for errors.

    Raises:
        InvalidSettingError: HTTP has no such name or value. The text does not show the value.
    """
    if headers is None:
        return None
    cleaned = {name: value.strip() for name, value in headers.items()}
    for name, value in cleaned.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidSettingError(f"`{source}` contains {name!r}, which is no name of a header.")
        if not (value.isascii() and value.replace("\t", "").isprintable()):
            raise InvalidSettingError(
                f"The value of {name!r} in `{source}` contains {_kind_of_character(value)}, which no HTTP header"
                " can carry."
            )
    return cleaned


def _kind_of_character(text: str) -> str:
    return "a character that is not ASCII" if not text.isascii() else "a line break or another control character"


def split_query(base_url: str | None) -> tuple[str | None, dict[str, str]]:
    """Return a base URL without its query, and the query's parameters, which the SDK takes apart from the URL.

    Args:
        base_url: the address of the server; `None` for `$OPENAI_BASE_URL`, or else the SDK's default.

    Returns:
        The address, `None` for the SDK's default, and the values by name; a repeated name keeps its first value.

    Raises:
        InvalidSettingError: the address is no URL. The text shows the address without credentials.
    """
    base_url = (base_url or os.getenv("OPENAI_BASE_URL") or "").strip()
    if not base_url:
        return None, {}
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise InvalidSettingError(
            f"The base URL {public_address(base_url)} is no valid address. Special characters in a password have to be"
            " percent-encoded."
        ) from None
    return str(url.copy_with(query=None, fragment=None)), dict(url.params.items())


def is_secret_name(name: str) -> bool:
    """Return whether the name of a header, a parameter or a field marks a secret."""
    return _SECRET_NAME.search(name) is not None


def public_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers whose names mark no secret."""
    return {name: value for name, value in headers.items() if not is_secret_name(name)}


class Mask:
    """Mask of secrets in texts, in each spelling in which a message may quote them.

    Args:
        key: the API key, which is masked however short the key is; empty for no key.
        others: further secrets, masked from four characters on.
    """

    def __init__(self, key: str, others: Iterable[str] = ()) -> None:
        secrets = {key, key.strip(), *(part for other in others for part in (other, other.strip()))} - {""}
        spellings = {
            spelling
            for secret in secrets
            if len(secret) >= _SHORTEST_SECRET or secret in (key, key.strip())
            for spelling in _spellings(secret)
        }
        longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
        # Percent-encodings have digits of either case → ignore the case.
        self._pattern = re.compile("|".join([*map(re.escape, longest_first), _WEB_TOKEN]), re.IGNORECASE)

    def __call__(self, text: str) -> str:
        """Return a text with `***` in place of each secret."""
        return self._pattern.sub(_MASK, text)


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret's spellings: plain, `repr`, bytes, JSON, HTML, URL, base64, and some of them quoted once more."""
    data = secret.encode("utf-8", "surrogatepass")
    plain = {
        secret,
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
        repr(data)[2:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        quote(data),
        quote(data, safe=""),
        quote_plus(data),
    }
    yield from plain
    # A message that quotes the secret may be quoted by `repr` once more.
    yield from (repr(spelling)[1:-1] for spelling in plain)
    yield from (repr(repr(secret))[2:-2], repr(repr(data))[3:-2])
    # Basic auth has the user's name in front, and servers accept a key as the user or as the password.
    for content in (data, data + b":", b":" + data):
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(content).decode().rstrip("=")


def secrets_of(headers: Mapping[str, object], query: Mapping[str, object], addresses: Iterable[str]) -> Iterator[str]:
    """Yield the secrets of headers, of query parameters, of addresses and of the environment's proxies.

    Args:
        headers: values by name; a name such as `Authorization`, `Cookie` or `X-API-Key` marks a secret.
        query: values by name; likewise.
        addresses: addresses that may contain a user and a password.
    """
    for name, value in [*headers.items(), *query.items()]:
        if isinstance(value, str) and _SECRET_NAME.search(name):
            yield value
            # `Bearer …`, `Basic …`
            yield value.partition(" ")[2]
            # A cookie's value stands behind its name.
            yield from (part.partition("=")[2] for part in value.split(";"))
    for address in [*addresses, *getproxies().values()]:
        try:
            url = httpx.URL(address)
        except (httpx.InvalidURL, TypeError):
            continue
        yield url.password
        yield url.userinfo.decode()
        if url.password:
            yield f"{url.username}:{url.password}"
        else:
            yield url.username


class _SecretURLFilter(logging.Filter):
    """Filter of httpx's own log lines, which quote the address of each call."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace addresses that contain secrets; keep each record."""
        if isinstance(record.args, tuple):
            record.args = tuple(_hide_secrets(arg) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


def _hide_secrets(url: httpx.URL) -> httpx.URL | str:
    if url.userinfo or any(_SECRET_NAME.search(name) for name in url.params):
        return public_address(str(url))
    return url


logging.getLogger("httpx").addFilter(_SecretURLFilter())
