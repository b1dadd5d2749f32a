"""Calls of Azure's API: their paths, versions and keys, as calls of OpenAI's API, and refusals in Azure's words."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Scope

from .errors import ApiError

# Versions with dates. Newer functions have the address `/openai/v1` alone.
# https://learn.microsoft.com/azure/ai-services/openai/api-version-lifecycle
_VERSIONS = frozenset(
    {
        "2022-12-01",
        "2023-05-15",
        "2023-06-01-preview",
        "2023-07-01-preview",
        "2023-08-01-preview",
        "2023-09-01-preview",
        "2023-10-01-preview",
        "2023-12-01-preview",
        "2024-02-01",
        "2024-02-15-preview",
        "2024-03-01-preview",
        "2024-04-01-preview",
        "2024-05-01-preview",
        "2024-06-01",
        "2024-07-01-preview",
        "2024-08-01-preview",
        "2024-09-01-preview",
        "2024-10-01-preview",
        "2024-10-21",
        "2024-12-01-preview",
        "2025-01-01-preview",
        "2025-02-01-preview",
        "2025-03-01-preview",
        "2025-04-01-preview",
    }
)
# First version with batches. https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_FIRST_WITH_BATCHES = "2024-07-01-preview"
# https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle: versions below `/openai/v1` have no dates.
_UNDATED_VERSIONS = frozenset({"v1", "preview", "latest"})

_CALL = re.compile(r"/openai(?P<v1>/v1)?(?P<path>/.*)")
_BATCHES = re.compile(r"/(files|batches)(/.*)?")
# Azure expects the name of the deployment in the path of a synchronous call, and in no other path.
_DEPLOYMENT = re.compile(r"/deployments/[^/]+(?P<path>/(chat/completions|completions|embeddings))")


class AzureError(ApiError):
    """Refusal of a call in the words and the shape of Azure's gateway."""

    def body(self) -> dict[str, Any]:
        """Return the body of the reply."""
        return {"error": {"code": self.code, "message": self.message}}


def not_found() -> AzureError:
    """Return the refusal of a path, and of a version with a date that Azure does not know.

    https://github.com/MicrosoftDocs/azure-docs/issues/114602, https://github.com/langflow-ai/langflow/issues/3860
    """
    return AzureError(404, "Resource not found", code="404")


def denied() -> AzureError:
    """Return the refusal of a call without a valid key or token: https://github.com/SciSharp/BotSharp/issues/386."""
    return AzureError(
        401,
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an"
        " active subscription and use a correct regional API endpoint for your resource.",
        code="401",
    )


def no_deployment() -> AzureError:
    """Return the refusal of a synchronous call to an unknown deployment.

    https://github.com/chatboxai/chatbox/issues/861
    """
    return AzureError(
        404,
        "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes,"
        " please wait a moment and try again.",
        code="DeploymentNotFound",
    )


def translate_call(scope: Scope) -> Scope:
    """Return the ASGI scope of the call of OpenAI's API that a call of Azure's API means.

    Raises:
        AzureError: Azure has no such path, or no such version of its API.
    """
    match = _CALL.fullmatch(scope["path"])
    versions = parse_qs(scope["query_string"].decode("latin-1")).get("api-version", [])
    if match is None:
        raise not_found()
    path = match["path"]
    if match["v1"]:
        # A version is not required: https://learn.microsoft.com/azure/foundry/openai/latest. One with a date is
        # refused: https://github.com/hotovo/aider-desk/issues/460.
        if not _UNDATED_VERSIONS.issuperset(versions):
            raise AzureError(400, "API version not supported", code="BadRequest")
    elif not _VERSIONS.issuperset(versions) or not versions:
        raise not_found()
    elif _BATCHES.fullmatch(path):
        if versions[0] < _FIRST_WITH_BATCHES:
            raise not_found()
    elif deployment := _DEPLOYMENT.fullmatch(path):
        path = deployment["path"]
    headers = list(scope["headers"])
    if key := dict(headers).get(b"api-key"):
        headers = [(name, value) for name, value in headers if name not in (b"api-key", b"authorization")]
        headers.append((b"authorization", b"Bearer " + key))
    return {**scope, "path": f"/v1{path}", "headers": headers}
