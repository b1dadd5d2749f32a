"""Addresses of Azure OpenAI as people paste them."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import InvalidSettingError
from distilabel_openai_batch.api.azure_addresses import (
    AzureEndpoint,
    check_azure_address,
    is_azure_host,
    names_server,
    read_azure_endpoint,
)

HOST = "https://mine.openai.azure.com"
VERSION = "2024-10-21"


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (HOST, AzureEndpoint(f"{HOST}/openai")),
        (f" {HOST}/ ", AzureEndpoint(f"{HOST}/openai")),
        (f"{HOST}/openai", AzureEndpoint(f"{HOST}/openai")),
        (f"{HOST}/openai/?api-version={VERSION}", AzureEndpoint(f"{HOST}/openai", VERSION)),
        (f"{HOST}/?team=a", AzureEndpoint(f"{HOST}/openai?team=a")),
        *(
            (f"{HOST}/openai/deployments/{rest}?api-version={VERSION}", AzureEndpoint(f"{HOST}/openai", VERSION, "d"))
            for rest in ("d", "d/", "d/chat/completions", "d/completions", "d/embeddings")
        ),
        (f"{HOST}/openai/batches?api-version={VERSION}", AzureEndpoint(f"{HOST}/openai", VERSION)),
        (
            f"{HOST}/openai/responses?api-version={VERSION}",
            AzureEndpoint(f"{HOST}/openai", VERSION, is_responses=True),
        ),
        (f"{HOST}/openai/v1/responses", AzureEndpoint(f"{HOST}/openai/v1", is_versioned=True, is_responses=True)),
        (f"{HOST}/openai/deployments/responses", AzureEndpoint(f"{HOST}/openai", deployment="responses")),
        *(
            (f"{HOST}/openai/v1{rest}", AzureEndpoint(f"{HOST}/openai/v1", is_versioned=True))
            for rest in ("", "/", "/chat/completions", "/?api-version=preview")
        ),
        (
            "https://mine.services.ai.azure.com/api/projects/p",
            AzureEndpoint("https://mine.services.ai.azure.com/openai"),
        ),
        (
            "https://mine.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
            AzureEndpoint("https://mine.services.ai.azure.com/openai"),
        ),
        ("https://gateway.example.com/team", AzureEndpoint("https://gateway.example.com/team/openai")),
        ("https://gateway.example.com/openai", AzureEndpoint("https://gateway.example.com/openai")),
        ("http://127.0.0.1:8000/openai/", AzureEndpoint("http://127.0.0.1:8000/openai")),
        ("https://gateway.example.com/openai/openai", AzureEndpoint("https://gateway.example.com/openai/openai")),
        ("https://gateway.example.com/v1/openai", AzureEndpoint("https://gateway.example.com/v1/openai/openai")),
        (
            "https://gateway.example.com/team/openai/v1",
            AzureEndpoint("https://gateway.example.com/team/openai/v1", is_versioned=True),
        ),
        ("http://me:a@localhost:1/", AzureEndpoint("http://me:a@localhost:1/openai")),
    ],
)
def test_each_form_of_an_address_is_read(address, endpoint):
    assert read_azure_endpoint(address) == endpoint


@pytest.mark.parametrize(
    ("address", "is_azure"),
    [
        (HOST, True),
        ("https://mine.cognitiveservices.azure.com/openai/v1", True),
        ("https://mine.services.ai.azure.com", True),
        ("https://mine.openai.azure.us/openai/v1", True),
        ("https://MINE.OpenAI.Azure.com", True),
        ("https://api.openai.com/v1", False),
        ("https://openai.azure.com.example.com", False),
        ("https://example.com/mine.openai.azure.com", False),
        ("http://[half/v1", False),
        ("", False),
        (None, False),
    ],
)
def test_hosts_of_azure(address, is_azure):
    assert is_azure_host(address) is is_azure


@pytest.mark.parametrize("path", ["", "/", "/openai/deployments/d/chat/completions?api-version=1", "/api/projects/p"])
def test_an_address_without_batches_below_is_an_error_that_says_the_right_address(path):
    with pytest.raises(InvalidSettingError, match=rf"Write `{HOST}/openai/v1`, or use AzureOpenAIBatchLLM"):
        check_azure_address(f"{HOST}{path}")


@pytest.mark.parametrize(
    "address", [f"{HOST}/openai/v1", f"{HOST}/openai/v1/", f"{HOST}/openai?a=b", "https://one.example.com", None]
)
def test_other_addresses_are_no_error(address):
    check_azure_address(address)


@pytest.mark.parametrize(
    ("address", "is_named"),
    [
        (HOST, True),
        (f"{HOST}/openai/deployments/d/chat/completions?api-version={VERSION}", True),
        (f"{HOST}/openai/", True),
        (f"{HOST}/openai/v1/", False),
        ("https://another.openai.azure.com", False),
        ("http://[", False),
    ],
)
def test_a_pasted_address_names_its_server(address, is_named):
    assert names_server(address, f"{HOST}/openai/") is is_named
