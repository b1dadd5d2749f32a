"""Tokens of Microsoft Entra ID: a token for each call, and its sources."""

from __future__ import annotations

import logging
import sys
import types

import httpx
import pytest
import respx

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import azure_tokens
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.transport import Patience, sdk_client
from tests.support.batch_api import CALLS

BASES = {
    "https://mine.openai.azure.com/openai": "2024-10-21",
    "https://mine.openai.azure.com/openai/v1": None,
}
TOKEN = f"eyJ{'a' * 20}.{'b' * 20}."


def connect(base_url: str, provider) -> BatchAPI:
    client = sdk_client(base_url, "", timeout=1.0, azure_api_version=BASES[base_url], token_provider=provider)
    return BatchAPI(client, Patience(retries=2), logging.getLogger("tokens"))


@pytest.mark.parametrize("base_url", BASES)
async def test_each_call_has_the_token_of_its_time_and_no_key(clock, base_url):
    tokens = iter([f"{TOKEN}1", f"{TOKEN}2"])
    api = connect(base_url, lambda: next(tokens))
    with respx.mock() as server:
        route = server.get(url__startswith=base_url).mock(return_value=CALLS["retrieve"].success)
        for number in (1, 2):
            await api.retrieve("batch_1")
            headers = route.calls.last.request.headers
            assert headers["Authorization"] == f"Bearer {TOKEN}{number}"
            assert "api-key" not in headers


@pytest.mark.parametrize("token", ["", None, ConnectionError("login.example.com is down")], ids=repr)
async def test_a_missing_token_is_retried_and_then_reported(clock, token):
    """A creation whose token is missing was never sent, and so is not searched for."""
    calls = []

    def provide():
        calls.append(1)
        if isinstance(token, Exception):
            raise token
        return token

    api = connect("https://mine.openai.azure.com/openai", provide)
    with pytest.raises(errors.RunError, match=r"Microsoft Entra ID"):
        await api.create("file-1", "/chat/completions", "24h", "the-key", {})
    assert len(calls) == 3


async def test_no_message_shows_a_token(clock):
    refusal = httpx.Response(403, text=f"No {TOKEN}1.")
    api = connect("https://mine.openai.azure.com/openai/v1", lambda: f"{TOKEN}1")
    with respx.mock() as server:
        server.get(url__startswith="https://mine").mock(return_value=refusal)
        with pytest.raises(errors.RunError) as caught:
            await api.retrieve("batch_1")
    assert TOKEN not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.fixture
def identity(monkeypatch):
    """Stand-in for azure-identity."""
    module = types.ModuleType("azure.identity")
    module.DefaultAzureCredential = lambda: "credential"
    module.get_bearer_token_provider = lambda credential, scope: lambda: f"{credential} for {scope}"
    monkeypatch.setitem(sys.modules, "azure", types.ModuleType("azure"))
    monkeypatch.setitem(sys.modules, "azure.identity", module)


def test_the_variable_comes_before_azure_identity(identity, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", " token-1\n")
    provider, source = azure_tokens.environment_token_provider()
    assert (provider(), source) == ("token-1", "AZURE_OPENAI_AD_TOKEN")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", " ")
    provider, source = azure_tokens.environment_token_provider()
    assert (provider(), source) == ("credential for https://cognitiveservices.azure.com/.default", "azure-identity")


def test_without_both_there_is_no_provider(monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_AD_TOKEN", raising=False)
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    assert azure_tokens.environment_token_provider() is None
