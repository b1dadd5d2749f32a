"""The client of a server, how long its failures are waited for, and the words of its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import orjson
from tenacity import RetryCallState

# A proxy's page need not be told in full; the API's own messages are shorter than this.
_LONGEST_MESSAGE = 1_000


# What a server says that does not have the path it is asked at.
_NO_SUCH_PATH = frozenset({404, 405, 501})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server that fails.

    Attributes:
        first: seconds before the first repetition; each further pause is twice as long.
        longest: seconds between two repetitions, at most, unless the server asks for more with `Retry-After`.
        total: seconds after which a call is given up, if the server was ever reached in this run.
        retries: repetitions before the server was ever reached: a wrong address is an error soon.
    """

    first: float = 0.5
    longest: float = 60.0
    total: float = 6 * 3_600.0
    retries: int = 6

    def pause(self, attempt: int) -> float:
        """Seconds to wait after the failure of attempt number `attempt`, the first of which is 1."""
        # 2.0**64 is beyond any cap and far from overflowing, which a night of retries would come to.
        return min(self.longest, self.first * 2.0 ** min(attempt - 1, 64))


class _Passing(Exception):
    """The call failed in a way that may be over soon."""

    def __init__(self, reason: str, *, retry_after: float | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.refused = refused
        """The server did nothing, as it said; without that, a call that creates may have created."""


def sdk_client(
    base_url: str | None,
    api_key: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    azure_api_version: str | None = None,
) -> openai.AsyncOpenAI:
    """Makes the SDK's client, for every call to a server.

    Args:
        base_url: the server's address, `/v1` included; `None` for the SDK's default. On Azure `/openai` stands in the
            place of `/v1`.
        api_key: sent to the server and nowhere else.
        timeout: seconds that the server may be silent.
        headers: sent with every call.
        azure_api_version: the version of Azure's API; `None` for a server that speaks OpenAI's.
    """
    # 3.x wants an httpx2 client, and takes this one.
    http_client: Any = httpx.AsyncClient(timeout=timeout, follow_redirects=True)
    if azure_api_version:
        assert base_url is not None
        # Not by `azure_endpoint`, whose last slash 1.x keeps. Without `azure_deployment`, which 1.x would put into the
        # paths of files and batches. Into those of synchronous calls the SDK puts the model by itself.
        return openai.AsyncAzureOpenAI(
            base_url=base_url,
            api_version=azure_api_version,
            api_key=api_key,
            default_headers=headers,
            http_client=http_client,
        )
    return openai.AsyncOpenAI(base_url=base_url, api_key=api_key, default_headers=headers, http_client=http_client)


def _error_of(state: RetryCallState) -> _Passing:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, _Passing)
    return error


def _without_credentials(url: object) -> str:
    """An address as it can be shown."""
    shown = httpx.URL(str(url)).copy_with(username=None, password=None, query=None, fragment=None)
    return str(shown).rstrip("/")


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 3_600 else f"{seconds / 3_600:,.0f} h"


def _is_collection(method: str, path: str) -> bool:
    """Whether a call is about no file and no batch in particular: the path itself may be what is not found."""
    return method == "POST" and path.endswith(("/files", "/batches"))


def _is_no_endpoint(status_code: int, code: str | None, message: str) -> bool:
    """Whether a refusal says that there is no such path, rather than no such model."""
    return status_code in (405, 501) or (status_code == 404 and (code is None or "invalid url" in message.lower()))


def _object(response: Any) -> dict[str, Any]:
    """The JSON object that a raw response of the SDK is.

    Raises:
        ValueError: it is none: a proxy's page with status 200, perhaps.
    """
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise ValueError("The server's answer is not of this API.")
    return answer


def _message(error: openai.APIStatusError) -> str:
    """The API's own words, or the page of whoever answered in its place."""
    told = error.body.get("message") if isinstance(error.body, dict) else None
    return str(told) if told else str(error.body or error.message)


def _code(error: openai.APIStatusError) -> str | None:
    body = error.body if isinstance(error.body, dict) else {}
    code = body.get("code") or body.get("type")
    return str(code) if code else None


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_MESSAGE else f"{words[:_LONGEST_MESSAGE]}…"


def _seconds(retry_after: str | None) -> float | None:
    """What `Retry-After` asks for, where it is a number of seconds that somebody could wait for."""
    try:
        seconds = float(retry_after) if retry_after else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None
