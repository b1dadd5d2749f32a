"""Addresses of Azure OpenAI as people paste them: a resource, `/openai/v1/`, or the target URI of the portal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from distilabel_openai_batch.api.addresses import is_same_server, public_address
from distilabel_openai_batch.errors import InvalidSettingError

# Azure, Azure Government and Azure in China. https://learn.microsoft.com/azure/ai-services/cognitive-services-custom-subdomains
_HOST = re.compile(r".+\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)", re.IGNORECASE)

_VERSIONED = re.compile(r"^(.*/openai/v1)(/.*)?$")
_TARGET_URI = re.compile(r"^(.*/openai)/(?:deployments/([^/]+)(?:/.*)?|(?:batches|files|models|responses)(?:/.*)?)$")
_RESPONSES = re.compile(r"/openai(/v1)?/responses$")
# A project of Azure AI Foundry, and the API for models of other makers, which has no batches.
_OTHER_API = re.compile(r"^/(api/projects|models)(/.*)?$")


@dataclass(frozen=True, slots=True)
class AzureEndpoint:
    """Endpoint of an Azure OpenAI resource.

    Attributes:
        base_url: address below which the API's paths begin: it ends in `/openai`, or in `/openai/v1`.
        api_version: version of the API that the address names; `None` if the address names none.
        deployment: deployment that the address names; `None` if the address names none.
        is_versioned: whether the address ends in `/openai/v1`, where the API is OpenAI's and needs no `api-version`.
        is_responses: whether the address is a target URI of the Responses API.
    """

    base_url: str
    api_version: str | None = None
    deployment: str | None = None
    is_versioned: bool = False
    is_responses: bool = False


def is_azure_host(address: str | None) -> bool:
    """Return whether an address is on a host of Azure OpenAI."""
    try:
        return _HOST.fullmatch(urlsplit(address or "").hostname or "") is not None
    except ValueError:
        return False


def is_versioned_azure_address(address: str | None) -> bool:
    """Return whether an address is on a host of Azure OpenAI and ends in `/openai/v1`."""
    return is_azure_host(address) and _VERSIONED.fullmatch(urlsplit(address or "").path.rstrip("/")) is not None


def is_azure_address(base_url: str) -> bool:
    """Return whether an address is that of Azure's API: it ends in `/openai`, with no version before.

    DeepInfra's `/v1/openai` and Gemini's `/v1beta/openai` are addresses of servers with OpenAI's API.
    """
    return base_url.rstrip("/").endswith("/openai") and not re.search(r"/v\d\w*/openai/*$", base_url)


def read_azure_endpoint(address: str) -> AzureEndpoint:
    """Return the endpoint that an address means.

    Args:
        address: address of a resource or of a gateway to a resource, with or without a path and a query.
    """
    parts = urlsplit(address.strip())
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path, api_version, deployment = parts.path.rstrip("/"), None, None
    is_responses = _RESPONSES.search(path) is not None
    versioned = _VERSIONED.fullmatch(path)
    if versioned:
        path = versioned[1]
        query.pop("api-version", None)
    elif target := _TARGET_URI.fullmatch(path):
        path, deployment = target[1], target[2]
        api_version = query.pop("api-version", None)
    elif is_azure_address(path):
        api_version = query.pop("api-version", None)
    elif is_azure_host(address) and _OTHER_API.fullmatch(path):
        path = "/openai"
        query.pop("api-version", None)
    else:
        path += "/openai"
    base_url = urlunsplit((parts.scheme, parts.netloc, path, urlencode(query), ""))
    return AzureEndpoint(base_url, api_version, deployment, versioned is not None, is_responses)


def names_server(address: str, base_url: str) -> bool:
    """Return whether an address, as a user writes the address of any server or pastes that of Azure, names a server.

    Args:
        address: the address.
        base_url: the base URL of the server.
    """
    if is_same_server(public_address(address), base_url):
        return True
    try:
        return is_same_server(public_address(read_azure_endpoint(address).base_url), base_url)
    except ValueError:
        return False


def check_azure_address(address: str | None) -> None:
    """Check that an address of Azure is one below which the SDK's client for OpenAI finds files and batches.

    Raises:
        InvalidSettingError: the address is on a host of Azure, and ends neither in `/openai/v1` nor in `/openai`.
    """
    if not is_azure_host(address):
        return
    parts = urlsplit((address or "").strip())
    if not parts.path.rstrip("/").endswith(("/openai/v1", "/openai")):
        raise InvalidSettingError(
            f"{public_address(address or '')} is an address of Azure below which there are no batches. Write"
            f" `{parts.scheme}://{parts.hostname}/openai/v1`, or use AzureOpenAIBatchLLM with"
            f" `{parts.scheme}://{parts.hostname}`."
        )
