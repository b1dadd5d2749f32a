"""Headers from the environment and from the command line."""

from __future__ import annotations

import httpx
import openai
import pytest

from distilabel_openai_batch import InvalidSettingError
from distilabel_openai_batch.api import custom_headers
from distilabel_openai_batch.api.custom_headers import parse_headers
from distilabel_openai_batch.api.transport import sdk_client
from tests.support.batch_api import API_KEY, BASE_URL, CALLS, connect

SECRET = "header-that-must-not-leak"


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        ([], {}),
        (["X-Team: data"], {"X-Team": "data"}),
        (["X-Team:data", "", "  ", "X-URL: http://one:1/"], {"X-Team": "data", "X-URL": "http://one:1/"}),
        (["X-Empty:"], {"X-Empty": ""}),
        ([" X-Team :  data\r"], {"X-Team": "data"}),
        (["X-Team: one", "X-Team: two"], {"X-Team": "two"}),
    ],
)
def test_each_text_has_a_name_and_a_value(lines, headers):
    assert parse_headers(lines, "--header") == headers


@pytest.mark.parametrize(
    "line", [SECRET, f": {SECRET}", f"X Team: {SECRET}", f"X-Key: {SECRET}\x00", f"X-Key: é{SECRET}"]
)
def test_other_texts_are_refused_without_their_value(line):
    with pytest.raises(InvalidSettingError, match="--header") as caught:
        parse_headers(["X-Team: data", line], "--header")
    assert SECRET not in str(caught.value)


async def sent_headers(server, headers: dict[str, str] | None) -> httpx.Headers:
    """Return the headers of a call."""
    call = CALLS["retrieve"]
    route = call.route(server).mock(return_value=call.success)
    async with connect(headers=headers) as api:
        await api.retrieve("batch_1")
    return route.calls.last.request.headers


@pytest.fixture(params=[True, False], ids=["this SDK", "an SDK that ignores the variable"])
def environment(request, monkeypatch):
    """Return a function that sets `OPENAI_CUSTOM_HEADERS`, for newer and for older releases of the SDK."""
    if not request.param:
        create = openai.AsyncOpenAI.__init__

        def ignore_variable(self, **arguments):
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv(custom_headers.VARIABLE, raising=False)
                create(self, **arguments)

        monkeypatch.setattr(openai.AsyncOpenAI, "__init__", ignore_variable)
    return lambda value: monkeypatch.setenv(custom_headers.VARIABLE, value)


async def test_headers_of_the_environment_are_sent_with_every_sdk(server, environment):
    environment("X-Team: data\nX-Gateway-Key: key-1\n")
    headers = await sent_headers(server, None)
    assert (headers["X-Team"], headers["X-Gateway-Key"]) == ("data", "key-1")
    assert headers["Authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize("name", ["X-Team", "x-team"])
async def test_a_header_of_the_client_replaces_the_environments(server, environment, name):
    environment("X-Team: data\nX-Other: one")
    headers = await sent_headers(server, {name: "mine"})
    assert headers.get_list("X-Team") == ["mine"]
    assert headers["X-Other"] == "one"


def test_a_line_without_a_colon_is_an_error(environment):
    environment(f"X-Team: data\n{SECRET}")
    with pytest.raises(InvalidSettingError, match="Header 2 of OPENAI_CUSTOM_HEADERS has no colon") as caught:
        sdk_client(BASE_URL, API_KEY, timeout=1.0)
    assert SECRET not in str(caught.value)


def test_the_azure_client_sends_the_environments_headers(environment):
    environment("X-Team: data")
    client = sdk_client("https://mine.openai.azure.com/openai", API_KEY, timeout=1.0, azure_api_version="2024-10-21")
    assert client.default_headers["X-Team"] == "data"
