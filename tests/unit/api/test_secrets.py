"""Checks of keys and headers, addresses without secrets, and masks of secrets in every spelling."""

from __future__ import annotations

import html
import json
import logging
import unicodedata
from base64 import b64encode
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.secrets import (
    Mask,
    clean_headers,
    clean_key,
    public_headers,
    secrets_of,
    split_query,
)
from distilabel_openai_batch.errors import InvalidSettingError

KEY = "sk-this-key-must-not-leak"
WHITE_SPACE = [chr(code) for code in range(0x3001) if chr(code).isspace()]
CONTROL_CHARACTERS = [chr(code) for code in range(0x110) if unicodedata.category(chr(code)) == "Cc"]


@pytest.mark.parametrize("space", WHITE_SPACE, ids=ascii)
def test_white_space_around_a_key_is_removed(space):
    assert clean_key(f"{space}{KEY}{space}{space}", "The key") == KEY


@pytest.mark.parametrize("space", ["", " ", "\n", " \r\n\t"])
def test_a_key_of_white_space_is_empty(space):
    assert clean_key(space, "The key") == ""


@pytest.mark.parametrize("character", [*CONTROL_CHARACTERS, "é", "\u200b", "\ufeff", "\ud800", "“", "😀"], ids=ascii)
@pytest.mark.parametrize("place", [5, len(KEY)])
def test_a_character_that_no_key_has_is_an_error_that_does_not_show_the_key(character, place):
    key = f"{KEY[:place]}{character}{KEY[place:]}"
    if character.isspace() and place == len(KEY):
        assert clean_key(key, "The key") == KEY
        return
    with pytest.raises(InvalidSettingError, match=r"^The key contains a") as caught:
        clean_key(key, "The key")
    assert KEY[:5] not in str(caught.value)
    assert KEY[5:] not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_white_space_around_a_headers_value_is_removed():
    assert clean_headers({"X-Team": " data\n", "Cookie": "a=b; c\td"}) == {"X-Team": "data", "Cookie": "a=b; c\td"}
    assert clean_headers(None) is None


@pytest.mark.parametrize("value", [f"{KEY}\n{KEY}", f"{KEY}\0", f"{KEY}é", f"\u200b{KEY}"], ids=ascii)
def test_a_value_that_no_header_can_carry_is_an_error_without_the_value(value):
    with pytest.raises(InvalidSettingError, match="'X-Token'") as caught:
        clean_headers({"X-Token": value})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["", "X Team", "X-Team:", "X-Téam", "X-Team\n"])
def test_a_name_that_no_header_has_is_an_error(name):
    with pytest.raises(InvalidSettingError, match="no name of a header"):
        clean_headers({name: "data"})


ENCODINGS = {
    "str": str,
    "repr": lambda secret: repr(secret)[1:-1],
    "ascii": lambda secret: ascii(secret)[1:-1],
    "bytes": lambda secret: repr(secret.encode())[2:-1],
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "repr of repr": lambda secret: repr(repr(secret))[2:-2],
    "repr of bytes": lambda secret: repr(repr(secret.encode()))[3:-2],
    "repr of JSON": lambda secret: repr(json.dumps(secret)[1:-1])[1:-1],
    "HTML": html.escape,
    "path of a URL": quote,
    "percent": lambda secret: quote(secret, safe=""),
    "percent in lower case": lambda secret: quote(secret, safe="").lower(),
    "query of a URL": quote_plus,
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "Basic auth, as the password": lambda secret: b64encode(f":{secret}".encode()).decode(),
    "Basic auth, as the user": lambda secret: b64encode(f"{secret}:".encode()).decode(),
}
SECRETS = st.text(min_size=8, max_size=40)


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
@settings(deadline=None)
@given(secret=SECRETS)
def test_a_secret_is_masked_in_every_encoding(encode, secret):
    quoted = encode(secret)
    assert quoted not in Mask(secret)(f"<{quoted}>")
    assert quoted not in Mask("", [secret])(f"<{quoted}>")


@given(text=st.text(), secret=SECRETS)
def test_a_text_without_a_secret_stays_unchanged(text, secret):
    assert Mask("")(text) == text
    assert Mask("x" + secret)("Batch 1 failed.") == "Batch 1 failed."


def test_a_short_key_is_masked_and_another_short_value_is_not():
    assert Mask("k1", ["no"])("k1 is no key") == "*** is no key"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "Proxy-Authorization",
        "api-key",
        "X-API-Key",
        "Ocp-Apim-Subscription-Key",
        "Cookie",
        "X-Auth-Token",
        "X-Client-Secret",
        "X-Password",
        "X-Amz-Signature",
        "session-id",
    ],
)
def test_the_values_of_secret_headers_are_secrets(name):
    mask = Mask("", secrets_of({name: "Bearer hidden-value", "X-Team": "data-team"}, {}, []))
    assert mask("Bearer hidden-value hidden-value data-team") == "*** *** data-team"
    assert public_headers({name: "Bearer hidden-value", "X-Team": "data-team"}) == {"X-Team": "data-team"}


def test_the_name_of_a_gateway_is_no_secret():
    """Portkey's headers begin with its name, and most of them choose a provider."""
    headers = {"x-portkey-provider": "@one", "x-portkey-api-key": KEY, "x-portkey-virtual-key": KEY}
    assert public_headers(headers) == {"x-portkey-provider": "@one"}


def test_a_cookies_value_is_a_secret_without_its_name():
    mask = Mask("", secrets_of({"Cookie": "sid=abcdef; theme=light"}, {}, []))
    assert mask("the session abcdef ended") == "the session *** ended"


def test_passwords_of_addresses_and_proxies_are_secrets(monkeypatch):
    """The user's name alone is the secret if there is no password."""
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxy%2Fword@127.0.0.1:3128")
    addresses = ["https://me:pass%20word@example.com/v1", "https://token-as-user@example.com", "no address"]
    mask = Mask("", secrets_of({}, {"api_key": "query-key", "team": "data-team"}, addresses))
    for secret in ["pass word", "pass%20word", "proxy/word", "proxy%2Fword", "token-as-user", "query-key"]:
        assert mask(f"({secret})") == "(***)"
    assert mask(b64encode(b"me:pass word").decode()) == "***"
    assert mask("me data-team") == "me data-team"


ADDRESSES = {
    "https://api.example.com/v1": "https://api.example.com/v1",
    "https://me:secret@api.example.com:8443/v1/": "https://api.example.com:8443/v1/",
    "https://secret@api.example.com": "https://api.example.com",
    "https://api.example.com/v1?api_key=secret&team=a": "https://api.example.com/v1",
    "https://api.example.com/v1/?api_key=secret#secret": "https://api.example.com/v1/",
    "https://api.example.com/a@b": "https://api.example.com/a@b",
    "http://me:secret@[::1]:80/v1?x=@secret": "http://[::1]:80/v1",
    "http://me:se/cret@host/v1": "http://host/v1",
    "http://me:se?cret@host/v1": "http://host/v1",
    "http://me:se#cret@host/v1?a=secret": "http://host/v1",
    "http://me:secret@[::1/v1": "http://[::1/v1",
    "nowhere": "nowhere",
    "": "",
}


@pytest.mark.parametrize(("address", "public"), ADDRESSES.items())
def test_a_public_address_has_no_secret(address, public):
    assert public_address(address) == public


def test_the_query_of_a_base_url_is_taken_apart(monkeypatch):
    """The SDK would append each path to the query."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://env.example.com/v1?code=1\n")
    base_url, query = split_query(" https://me:secret@example.com/v1?api_key=a%20b&team=c#x ")
    assert (base_url, query) == ("https://me:secret@example.com/v1", {"api_key": "a b", "team": "c"})
    assert split_query("https://example.com/v1") == ("https://example.com/v1", {})
    assert split_query(None) == ("https://env.example.com/v1", {"code": "1"})
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert split_query(None) == (None, {})


@pytest.mark.parametrize("address", ["http://me:se/cret@host/v1", "http://me:secret@[::1/v1", "http://ho\nst/v1"])
def test_an_address_that_is_no_url_is_an_error_without_the_password(address):
    with pytest.raises(InvalidSettingError, match="no valid address") as caught:
        split_query(address)
    assert "cret" not in str(caught.value)


def test_httpx_logs_no_secret_of_an_address(caplog):
    """httpx logs the address of each call at the level INFO."""
    with caplog.at_level(logging.INFO, "httpx"):
        for address in ("https://me:secret@example.com/v1", "https://example.com/v1?api_key=secret", "https://a/b?c=d"):
            logging.getLogger("httpx").info("HTTP Request: %s %s", "GET", httpx.URL(address))
    assert caplog.messages == [
        "HTTP Request: GET https://example.com/v1",
        "HTTP Request: GET https://example.com/v1",
        "HTTP Request: GET https://a/b?c=d",
    ]
