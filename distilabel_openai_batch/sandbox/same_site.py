"""ASGI middleware that refuses calls of web pages: a page of any site can send requests to a local server."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError

# Values of `Sec-Fetch-Site` for a page of this server and for an address that the user typed.
_OWN_SITES = frozenset({"same-origin", "none"})


def foreign_site(scope: Scope) -> str | None:
    """Return the header by which a call shows that another site's page made the call; `None` for any other call.

    Browsers add `Origin` and `Sec-Fetch-Site`, and clients of the API send neither. A page whose name was rebound to
    this machine shows its own name in `Host`.

    Args:
        scope: scope of an HTTP request.
    """
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in _OWN_SITES:
        return f"Sec-Fetch-Site: {site}"
    if origin is not None and origin != f"{scope.get('scheme', 'http')}://{host}":
        return f"Origin: {origin}"
    server = scope.get("server")
    if server and _is_loopback(server[0]) and not _is_loopback(_host_name(host)):
        return f"Host: {host}"
    return None


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class SameSiteMiddleware:
    """Middleware that answers 403 to calls of other sites' pages, at every path.

    Args:
        app: application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        header = foreign_site(scope) if scope["type"] == "http" else None
        if header is None:
            await self._app(scope, receive, send)
            return
        body = orjson.dumps(ApiError(403, f"The sandbox refuses calls of other sites' pages ({header}).").body())
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})
