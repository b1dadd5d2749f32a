"""One exchange on the wire: which call it is, whether something is to go wrong with it, and its entry in the books."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .faults import Fault
from .organization import Organization
from .records import Call

# Where the server puts the functions that close a connection, see `server.py`.
ABORT = "sandbox.abort"
CLOSE = "sandbox.close"

_CALLS = (
    ("POST", re.compile(r"/v1/files"), "files.create"),
    ("GET", re.compile(r"/v1/files"), "files.list"),
    ("GET", re.compile(r"/v1/files/[^/]+"), "files.retrieve"),
    ("GET", re.compile(r"/v1/files/[^/]+/content"), "files.content"),
    ("DELETE", re.compile(r"/v1/files/[^/]+"), "files.delete"),
    ("POST", re.compile(r"/v1/batches"), "batches.create"),
    ("GET", re.compile(r"/v1/batches"), "batches.list"),
    ("GET", re.compile(r"/v1/batches/[^/]+"), "batches.retrieve"),
    ("POST", re.compile(r"/v1/batches/[^/]+/cancel"), "batches.cancel"),
    ("POST", re.compile(r"/v1/chat/completions"), "chat.completions"),
    ("POST", re.compile(r"/v1/completions"), "completions"),
    ("POST", re.compile(r"/v1/embeddings"), "embeddings"),
)


def call_name(method: str, path: str) -> str:
    """Returns the SDK's name for a call, `unknown` if it has none."""
    return next((name for verb, pattern, name in _CALLS if verb == method and pattern.fullmatch(path)), "unknown")


class Exchange:
    """ASGI middleware around the API. What steers the sandbox passes by it.

    Args:
        app: the application.
        organization: returns the account that is served at the moment.
    """

    def __init__(self, app: ASGIApp, organization: Callable[[], Organization]) -> None:
        self._app = app
        self._organization = organization

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        scope = self._organization().settings.dialect.scope(scope)
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        organization = self._organization()
        name = call_name(scope["method"], scope["path"])
        came = organization.clock()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        organization.callers += 1
        try:
            fault = organization.script.for_call(name)
            if fault is None:
                await self._app(scope, receive, sending)
            else:
                await self._fail(fault, scope, receive, sending)
        finally:
            organization.callers -= 1
            query = scope["query_string"].decode("latin-1")
            organization.calls.append(Call(name, scope["method"], scope["path"], status, came, query))

    async def _fail(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind == "status":
            await _reply(fault, receive, send)
        elif fault.kind == "cut_before":
            await _cut(scope, receive, ABORT)
        elif fault.kind == "cut_after":
            await self._app(scope, receive, _nowhere)
            await _cut(scope, receive, ABORT)
        elif fault.kind == "truncate":
            await self._truncate(scope, receive, send)
        else:
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _truncate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the head of the reply and half of its body, then closes."""
        left = 0

        async def half(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = next(int(value) for key, value in message["headers"] if key == b"content-length") // 2
                await send(message)
            elif left > 0:
                part = message["body"][:left]
                left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})

        await self._app(scope, receive, half)
        await _cut(scope, receive, CLOSE)


async def _reply(fault: Fault, receive: Receive, send: Send) -> None:
    # Read to the end first: a server that replies and closes in the middle of an upload makes the client see a
    # broken connection instead of the status.
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    if isinstance(fault.body, str):
        body, kind = fault.body.encode(), b"text/html; charset=utf-8"
    else:
        error = ApiError(fault.status, "The sandbox was told to fail this call.", type="server_error").body()
        body, kind = orjson.dumps(error if fault.body is None else fault.body), b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers += [(key.lower().encode(), value.encode()) for key, value in fault.headers.items()]
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _nowhere(message: Message) -> None:
    """Swallows a reply."""


async def _cut(scope: Scope, receive: Receive, way: str) -> None:
    """Closes the connection.

    Raises:
        ConnectionResetError: without a connection to close, as when the application is called in the same process.
    """
    close = scope.get("extensions", {}).get(way)
    if close is None:
        raise ConnectionResetError("The sandbox was told to cut this connection.")
    close()
    # Until the server has noticed: were we to return sooner, it would send a reply of its own.
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
