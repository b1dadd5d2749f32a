"""Calls to one server: the SDK's client, retries, and the mapping of the SDK's errors to ours.

Transient failures (a cut connection, a 503, a 429) are retried here; any other failure is raised as a `RunError` that
quotes the API. The SDK's own retries are off: the SDK would repeat a create whose reply was lost, and so buy the batch
twice.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import anyio
import httpx
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.adapters import OpenAIAdapter, find_adapter
from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.azure_tokens import PLACEHOLDER_KEY, TokenAuth, TokenProvider
from distilabel_openai_batch.api.custom_headers import add_environment_headers, merge_headers
from distilabel_openai_batch.api.lasting_failures import LastingFailure, LastingFailureError
from distilabel_openai_batch.api.redirects import RedirectRefusedError, refuse_redirect
from distilabel_openai_batch.api.replies import ReplyError
from distilabel_openai_batch.api.secrets import Mask, secrets_of, split_query
from distilabel_openai_batch.api.size_limits import limit_reply
from distilabel_openai_batch.api.tls import tls_context

T = TypeVar("T")

# Characters of an error message that are shown: the API's own messages are shorter, a proxy's page is longer.
_MESSAGE_CHARACTERS = 1_000

# Maximum of successive replies to one call that have a status of success and another content, and of their seconds.
_UNEXPECTED_REPLIES = 7
_UNEXPECTED_REPLY_SECONDS = 45.0

# The text of an error of OpenAI's SDK, which LiteLLM quotes under a code of its own ("429"):
# https://github.com/BerriAI/litellm/pull/37527
_QUOTED_CODE = re.compile(r"Error code: \d{3} - .*'code': '(\w+)'")

# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
_AZURE_ADVICE = (
    ". Azure answers so if the endpoint is wrong, or if the `api_version` is unknown or older than batches. Write"
    " `2024-10-21` ($OPENAI_API_VERSION), or the address with `/openai/v1/`, which needs no version."
)

# Ends of the base URLs of servers with OpenAI's API: `/v1`; DeepInfra's ends in `/v1/openai`.
_VERSION_IN_PATH = re.compile(r"/v\d\w*(/openai)?$")

# Connections that stay open without a request: the default of `max_concurrency`.
_MAX_IDLE_CONNECTIONS = 100

_STORAGE_ADVICE = (
    "The server's file storage is full. Delete files that are no longer needed from the server, or wait until files"
    " expire. `delete_files=True` deletes a job's files once the ledger holds their content; `input_expires_after` and"
    " `output_expires_after` let files expire sooner."
)

# Small calls that show whether a server works.
_PROBES = ("/batches", "/files", "/models")

PATH_UNKNOWN = frozenset({404, 405, 501})
"""Status codes with which a server answers if it does not have the requested path."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Pauses between the attempts of a call, and their end.

    Attributes:
        first: seconds before the second attempt; each further pause is twice as long.
        longest: maximum of seconds between two attempts, unless the server asks for more with `Retry-After`.
        total: seconds after which a call is given up, if the server was ever reached in this run.
        retries: retries before the server was ever reached, so that a wrong address is reported soon.
    """

    first: float = 0.5
    longest: float = 60.0
    total: float = 6 * 3_600.0
    retries: int = 6

    def pause(self, attempt: int) -> float:
        """Return the seconds to wait after the failure of attempt number `attempt`, which counts from 1."""
        # 2.0**64 exceeds every `longest`; the exponent of a night of retries would overflow.
        return min(self.longest, self.first * 2.0 ** min(attempt - 1, 64))


class TransientError(Exception):
    """A failure of a call that may succeed if it is repeated.

    Attributes:
        retry_after: seconds that the server asks to wait, `None` if it does not ask.
        did_nothing: whether the server certainly did nothing. If `False`, a call that creates may have created.
        is_unexpected_reply: whether the server answered with a status of success, but not with the call's object.
        status_code: the HTTP status code of a refusal, `None` for any other failure.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry_after: float | None = None,
        did_nothing: bool = False,
        is_unexpected_reply: bool = False,
        status_code: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.did_nothing = did_nothing
        self.is_unexpected_reply = is_unexpected_reply
        self.status_code = status_code


class _UnexpectedReplyLimit:
    """The limit of successive unexpected replies to one call.

    A proxy's page may pass within seconds; a server with another API never does, and must be reported within a minute.

    Attributes:
        count: the number of successive unexpected replies so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._started = 0.0

    def note(self, error: TransientError) -> None:
        """Count an unexpected reply; restart the count at any other failure."""
        if not error.is_unexpected_reply:
            self.count = 0
            return
        if not self.count:
            self._started = time.monotonic()
        self.count += 1

    def is_reached(self, pause: float) -> bool:
        """Return whether another attempt after a pause, in seconds, would exceed the limit."""
        elapsed = time.monotonic() - self._started
        is_late = elapsed + pause > _UNEXPECTED_REPLY_SECONDS
        return self.count >= _UNEXPECTED_REPLIES or (self.count > 0 and is_late)


def load_client_parts() -> None:
    """Load the parts that all clients share, so that the first call does not have to: certificates and modules."""
    # httpx imports its transport with the first client, and the SDK a resource with the resource's first use.
    httpx.AsyncClient(verify=tls_context())
    for resource in ("batches", "files"):
        import_module(f"openai.resources.{resource}")


def sdk_client(
    base_url: str | None,
    api_key: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    azure_api_version: str | None = None,
    token_provider: TokenProvider | None = None,
) -> openai.AsyncOpenAI:
    """Create the SDK's client for all calls to one server.

    Args:
        base_url: the server's address, `/v1` included; `None` for the SDK's default. An address on Azure ends in
            `/openai` instead of `/v1`. The query of the address is sent with every call.
        api_key: sent to the server and nowhere else.
        timeout: seconds that the server may be silent.
        headers: sent with every call, besides the headers of `$OPENAI_CUSTOM_HEADERS`.
        azure_api_version: the version of Azure's API; `None` for a server that speaks OpenAI's API.
        token_provider: returns a token of Microsoft Entra ID for each call, in place of the key; `None` for the key.

    Raises:
        InvalidSettingError: the address is no URL, or the variable holds no headers.
    """
    headers = merge_headers(headers)
    # The SDK would append paths to the query.
    base_url, query = split_query(base_url)
    # The SDK's version 3 is typed for an httpx2 client, and accepts this one.
    http_client: Any = httpx.AsyncClient(
        timeout=timeout,
        verify=tls_context(),
        # `max_concurrency` limits the synchronous requests in flight; httpx's own limit of 100 would let others fail.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=_MAX_IDLE_CONNECTIONS),
        follow_redirects=True,
        auth=TokenAuth(token_provider) if token_provider else None,
        # Decoded replies have no limit: a megabyte may become a gigabyte → request replies that are not encoded.
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [refuse_redirect, limit_reply]},
    )
    api_key = PLACEHOLDER_KEY if token_provider else api_key
    if azure_api_version:
        assert base_url is not None
        # `azure_endpoint` keeps a trailing slash in 1.x, and `azure_deployment` enters the paths of files and batches
        # there → pass neither. The SDK itself puts the model into the paths of synchronous calls.
        azure_client = openai.AsyncAzureOpenAI(
            base_url=base_url,
            api_version=azure_api_version,
            api_key=api_key,
            default_headers=headers,
            default_query=query,
            http_client=http_client,
        )
        return add_environment_headers(azure_client, headers)
    client = openai.AsyncOpenAI(
        base_url=base_url, api_key=api_key, default_headers=headers, default_query=query, http_client=http_client
    )
    return add_environment_headers(client, headers)


class Transport:
    """The calls to one server, with retries and one error boundary, so that callers need no `try`.

    Args:
        client: the SDK's client, used with its own retries switched off.
        patience: pauses and number of the attempts.
        logger: the logger of failed attempts.
        secrets: secrets besides those of the client, which no message shows.
        adapter: makes the calls that differ between servers; `None` for the adapter of the host.

    Attributes:
        adapter: makes the calls that differ between servers.
        client: the SDK's client without retries.
        raw_client: the same client; it returns responses unparsed, because the SDK's objects of a hundred batches cost
            milliseconds per poll.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        patience: Patience,
        logger: logging.Logger,
        secrets: Iterable[str] = (),
        adapter: OpenAIAdapter | None = None,
    ) -> None:
        self.adapter = adapter or find_adapter(str(client.base_url))
        self.client = client.with_options(max_retries=0)
        self.raw_client = self.client.with_raw_response
        self.patience = patience
        self.logger = logger
        self._was_reached = False
        self._successes = 0
        key = client.api_key if isinstance(client.api_key, str) else ""
        own_secrets = secrets_of(client.default_headers, client.default_query, [str(client.base_url)])
        self._mask = Mask(key, [*own_secrets, *secrets])

    @property
    def address(self) -> str:
        """Return the server's base URL without credentials."""
        return public_address(str(self.client.base_url)).rstrip("/")

    async def retry(self, action: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call until it succeeds, fails for good, or exceeds the patience.

        Args:
            action: the infinitive that logs and errors name ("upload an input file").
            attempt: makes one call and returns its result.

        Returns:
            The result of the successful attempt.

        Raises:
            RunError: the server refuses, or could not be reached. `did_nothing` is set if no attempt had an effect.
        """
        started = time.monotonic()
        did_nothing = True
        limit = _UnexpectedReplyLimit()
        lasting = LastingFailure(lambda: self._successes, self._answers_other_calls)

        def is_exhausted(state: RetryCallState) -> bool:
            if limit.is_reached(pause(state)) or lasting.is_certain:
                return True
            if not self._was_reached:
                return state.attempt_number > self.patience.retries
            return time.monotonic() - started > self.patience.total

        def pause(state: RetryCallState) -> float:
            return max(_error_of(state).retry_after or 0.0, self.patience.pause(limit.count or state.attempt_number))

        def note_failure(state: RetryCallState) -> None:
            nonlocal did_nothing
            did_nothing = did_nothing and _error_of(state).did_nothing
            self._log_failure(action, state)

        async def make_attempt() -> T:
            try:
                return await self.call(attempt)
            except TransientError as error:
                limit.note(error)
                await lasting.note(error.status_code, time.monotonic())
                raise

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=is_exhausted,
            wait=pause,
            before_sleep=note_failure,
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            result: T = await retrying(make_attempt)
        except TransientError as error:
            failure = self._final_error(action, error, time.monotonic() - started if lasting.is_certain else None)
            failure.did_nothing = did_nothing and error.did_nothing
            raise failure from None
        except errors.RunError as error:
            error.did_nothing = error.did_nothing and did_nothing
            raise
        return result

    def _final_error(self, action: str, error: TransientError, lasted: float | None) -> errors.ConnectionFailedError:
        """Return the error of a call that is given up.

        Args:
            action: as for `retry`.
            error: the last failure.
            lasted: the seconds for which the call failed lastingly, while the server works; `None` for other failures.
        """
        hint = "" if self._was_reached else " Is the address right, and is the server up?"
        if lasted is not None:
            hint = (
                f" The server has given this answer for {_duration(lasted)}, while it answers other calls. Jobs in"
                " progress stay at the server."
            )
        kind = errors.ConnectionFailedError if lasted is None else LastingFailureError
        return kind(
            f"Failed to {action} at {self.address}: {_sentence(error)}{hint} All answers are kept; run again to"
            " continue.",
            status_code=None if lasted is None else error.status_code,
        )

    async def call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make one call and map the SDK's exceptions to ours.

        Raises:
            TransientError: the call may succeed if it is repeated.
            RunError: the server refuses the call.
        """
        try:
            result = await call()
        except openai.APIStatusError as error:
            self._was_reached = True
            raise self._mapped(error) from None
        except (openai.APIConnectionError, httpx.RequestError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, RedirectRefusedError | httpx.TooManyRedirects):
                raise self._mapped_redirect(cause) from None
            if isinstance(cause, ReplyError):
                raise TransientError(self._shorten(str(cause)), is_unexpected_reply=True) from None
            reason = str(cause) or str(error) or type(error).__name__
            never_sent = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
            raise TransientError(f"{self.mask(reason).rstrip('.')}.", did_nothing=never_sent) from None
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            # The reply is no JSON, nested too deeply or not of this API, as a proxy's page with status 200 → retry.
            raise TransientError(self._shorten(str(error)), is_unexpected_reply=True) from None
        self._was_reached = True
        self._successes += 1
        return result

    async def _answers_other_calls(self) -> bool:
        """Return whether the server answers one of three small calls with success."""
        for path in _PROBES:
            with suppress(TransientError, errors.RunError):
                await self.call(partial(self._probe, path))
                return True
        return False

    async def _probe(self, path: str) -> None:
        await self.client.get(path, cast_to=httpx.Response, options={"params": {"limit": 1}})

    def note_reached(self) -> None:
        """Note that the server replied, although the reply may yet break off: later failures are retried for hours."""
        self._was_reached = True

    def mask(self, text: str) -> str:
        """Return a text with `***` in place of the API key, secret headers and passwords, however they are written."""
        return self._mask(text)

    def message_of(self, error: openai.APIStatusError) -> str:
        """Return the API's message, or the page of a proxy, shortened and without secrets."""
        message = error.body.get("message") if isinstance(error.body, dict) else None
        return self._shorten(str(message or error.body or error.message))

    def _shorten(self, text: str) -> str:
        """Return a text in one line, shortened and without secrets."""
        words = " ".join(self.mask(text).split())
        return words if len(words) <= _MESSAGE_CHARACTERS else f"{words[:_MESSAGE_CHARACTERS]}…"

    def _log_failure(self, action: str, state: RetryCallState) -> None:
        # Log attempts 1, 2, 4, 8, … so that a long outage does not flood the log.
        if state.attempt_number & (state.attempt_number - 1) == 0:
            error = _error_of(state)
            until = f", for at most {self._time_limit(error)}" if state.attempt_number == 1 else ""
            self.logger.warning(
                f"Failed to {action} at {self.address}: {_sentence(error)} Retrying in"
                f" {state.upcoming_sleep:.1f} s{until}."
            )

    def _time_limit(self, error: TransientError) -> str:
        patience = self.patience
        if error.is_unexpected_reply:
            return _duration(_UNEXPECTED_REPLY_SECONDS)
        if self._was_reached:
            return _duration(patience.total)
        return _duration(sum(patience.pause(attempt) for attempt in range(1, patience.retries + 1)))

    def _mapped(self, error: openai.APIStatusError) -> Exception:
        code, status_code, message = error_code(error), error.status_code, self.message_of(error)
        text = f"{message} (HTTP {status_code}{f', {code}' if code else ''})"
        if status_code in PATH_UNKNOWN and _is_collection(error.request.method, error.request.url.path):
            text = f"{error.request.method} {public_address(str(error.request.url))} was answered: {text}"
            if isinstance(self.client, openai.AsyncAzureOpenAI):
                text += _AZURE_ADVICE
            elif not _VERSION_IN_PATH.search(self.address):
                text += ". Is the base URL right? The base URL of a server with OpenAI's API usually ends in /v1."
        kind = errors.RunError
        if errors.is_out_of_quota(code):
            kind = errors.QuotaError
        elif _is_upload(error.request.method, error.request.url.path) and errors.is_storage_full(
            status_code, code, message
        ):
            kind = errors.StorageFullError
            text += f". {_STORAGE_ADVICE}"
        elif errors.is_key_rejected(status_code):
            kind = errors.AuthenticationError
        elif errors.is_transient(status_code, code) and not errors.is_over_token_limit(code):
            retry_after = _seconds(error.response.headers.get("retry-after"))
            return TransientError(
                text, retry_after=retry_after, did_nothing=status_code == 429, status_code=status_code
            )
        param = error.body.get("param") if isinstance(error.body, dict) else None
        refusal = kind(text, status_code=status_code, code=code, param=param if isinstance(param, str) else None)
        refusal.did_nothing = True
        return refusal

    def _mapped_redirect(self, error: RedirectRefusedError | httpx.TooManyRedirects) -> errors.RunError:
        """Return the error of the run for a redirect, which no retry fixes."""
        if isinstance(error, httpx.TooManyRedirects):
            return errors.RunError(f"The server at {self.address} redirects a call again and again.")
        refusal = errors.RunError(self.mask(str(error)), status_code=error.status_code)
        refusal.did_nothing = error.did_nothing
        return refusal


def error_code(error: openai.APIStatusError) -> str | None:
    """Return the API's error code, or the error's type if there is no code.

    A gateway may quote the error of the server behind it in its own message: the code of the quoted error counts.
    """
    body = error.body if isinstance(error.body, dict) else {}
    if quoted := _QUOTED_CODE.search(str(body.get("message"))):
        return quoted[1]
    code = body.get("code") or body.get("type")
    return str(code) if code else None


def _error_of(state: RetryCallState) -> TransientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TransientError)
    return error


def _sentence(error: TransientError) -> str:
    """Return the error's text with a full stop, so that another sentence can follow."""
    text = str(error)
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 3_600 else f"{seconds / 3_600:,.0f} h"


def _is_collection(method: str, path: str) -> bool:
    """Return whether a call names no particular file or batch, so that a 404 means that the path is unknown."""
    return _is_upload(method, path) or (method == "POST" and path.endswith("/batches"))


def _is_upload(method: str, path: str) -> bool:
    return method == "POST" and path.endswith(("/files", "/files/upload"))


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header; `None` if the header is no finite, non-negative number."""
    try:
        seconds = float(retry_after) if retry_after else None
    except ValueError:
        return None
    return seconds if seconds is not None and 0 <= seconds < float("inf") else None
