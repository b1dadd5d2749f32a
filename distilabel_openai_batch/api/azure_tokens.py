"""Tokens of Microsoft Entra ID, which take the place of a key on Azure and expire within about an hour."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable

import anyio.to_thread
import httpx

TokenProvider = Callable[[], str]
"""Function that returns a valid token, and renews the token when needed. The function is called before each call."""

TOKEN_VARIABLE = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105
"""Environment variable with a token, which the SDK reads too. Nothing renews this token."""

PLACEHOLDER_KEY = "entra-id"
"""Key that the SDK requires; `TokenAuth` replaces the key by a token."""

# https://learn.microsoft.com/azure/ai-services/openai/how-to/managed-identity
_SCOPE = "https://cognitiveservices.azure.com/.default"


class TokenError(httpx.ConnectError):
    """Failure to get a token, so that no call was sent, as without a connection."""


class TokenAuth(httpx.Auth):
    """Authentication of each call by a token, which the provider may have renewed since the last call.

    Args:
        provider: returns a valid token; called in a thread, since a renewal calls a server.
    """

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Set the token, and remove the placeholder of the key.

        Raises:
            TokenError: the provider has no token.
        """
        try:
            token = await anyio.to_thread.run_sync(self._provider)
        except Exception as error:
            raise TokenError(f"There is no token of Microsoft Entra ID: {error}") from error
        if not token or not isinstance(token, str):
            raise TokenError("The provider of tokens of Microsoft Entra ID returned none.")
        request.headers["Authorization"] = f"Bearer {token}"
        request.headers.pop("api-key", None)
        yield request


def environment_token_provider() -> tuple[TokenProvider, str] | None:
    """Return a provider of tokens from the environment, and the name of its source; `None` if there is none.

    `$AZURE_OPENAI_AD_TOKEN` comes first, then the default credential of azure-identity (a service principal in
    variables, a managed identity, or the login of `az login`), which renews its tokens.
    """
    if os.getenv(TOKEN_VARIABLE, "").strip():
        return _token_of_environment, TOKEN_VARIABLE
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
    except ImportError:
        return None
    return get_bearer_token_provider(DefaultAzureCredential(), _SCOPE), "azure-identity"


def _token_of_environment() -> str:
    return os.environ.get(TOKEN_VARIABLE, "").strip()
