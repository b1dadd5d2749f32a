"""Redirects: a server may send a call on within its own origin, and a file's download to a storage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.size_limits import limit_reply
from distilabel_openai_batch.api.tls import tls_context

# Storages redirect once, to another region.
_STORAGE_REDIRECTS = 5

# Redirects that keep the method and the body. https://www.rfc-editor.org/rfc/rfc9110#name-redirection-3xx
_KEEPING_REDIRECTS = frozenset({307, 308})
# Replies that a server may send after the call has had its effect.
_REDIRECTS_AFTER_EFFECT = frozenset({302, 303})


class RedirectRefusedError(httpx.TransportError):
    """Redirect that is not followed, because the target is another origin or would not get the same call.

    Attributes:
        status_code: the HTTP status code of the redirect.
        storage: the target, which a download of a file may read without our headers; `None` if the call is no `GET`, or
            if the redirect leads from HTTPS to HTTP.
        did_nothing: whether the server certainly did nothing.
    """

    def __init__(self, response: httpx.Response, target: httpx.URL | None) -> None:
        request = response.request
        source, status_code = _origin(request.url), response.status_code
        if target is None:
            text = f"{source} redirects to an address that is not valid (HTTP {status_code})."
        elif _origin(target) != source:
            text = (
                f"{source} redirects {request.method} {request.url.path} to another host, {_origin(target)} (HTTP"
                f" {status_code}). The key, the headers and the prompts are sent to the host of `base_url` only. If you"
                " trust the other host, set `base_url` to its address."
            )
        else:
            text = (
                f"{source} redirects {request.method} {request.url.path} to {public_address(str(target))} (HTTP"
                f" {status_code}), which would drop the request's body. Set `base_url` to the address that the server"
                " redirects to."
            )
        super().__init__(text, request=request)
        self.status_code = status_code
        self.did_nothing = status_code not in _REDIRECTS_AFTER_EFFECT
        may_be_storage = request.method == "GET" and target is not None and _may_be_storage(request.url, target)
        self.storage = target if may_be_storage else None


async def refuse_redirect(response: httpx.Response) -> None:
    """Raise unless a redirect stays in its origin with the same method; a hook for each response of httpx.

    Raises:
        RedirectRefusedError: the redirect leads to another scheme, host or port, or changes the method.
    """
    if not response.has_redirect_location:
        return
    request = response.request
    target = _target(response)
    keeps_call = request.method == "GET" or response.status_code in _KEEPING_REDIRECTS
    if target is None or _origin(target) != _origin(request.url) or not keeps_call:
        raise RedirectRefusedError(response, target)


@asynccontextmanager
async def open_storage(
    address: httpx.URL, headers: Mapping[str, str], timeout: float | None
) -> AsyncIterator[httpx.Response]:
    """Request a file's content from the storage that the server redirects to, without key, cookies and prompts.

    Args:
        address: the address of the content, which the server has signed as a rule.
        headers: the only headers beside httpx's own: `Accept`, `Accept-Encoding` and `Range`.
        timeout: seconds that the storage may be silent.

    Raises:
        RedirectRefusedError: the storage redirects from HTTPS to HTTP.
        httpx.RequestError: the storage cannot be reached, or redirects too often.
    """
    async with (
        httpx.AsyncClient(
            timeout=timeout,
            verify=tls_context(),
            follow_redirects=True,
            max_redirects=_STORAGE_REDIRECTS,
            event_hooks={"response": [_refuse_downgrade, limit_reply]},
        ) as client,
        client.stream("GET", address, headers=headers) as response,
    ):
        yield response


async def _refuse_downgrade(response: httpx.Response) -> None:
    if response.has_redirect_location:
        target = _target(response)
        if target is None or not _may_be_storage(response.request.url, target):
            raise RedirectRefusedError(response, target)


def _may_be_storage(source: httpx.URL, target: httpx.URL) -> bool:
    return target.scheme == "https" or (target.scheme == "http" and source.scheme == "http")


def _target(response: httpx.Response) -> httpx.URL | None:
    """Return the address that a reply redirects to; `None` if the address is invalid."""
    try:
        return response.request.url.join(response.headers["location"])
    except (httpx.InvalidURL, ValueError):
        return None


def _origin(url: httpx.URL) -> str:
    """Return an address's scheme, host and port, without a scheme's own port."""
    return f"{url.scheme}://{url.netloc.decode()}"
