"""ASGI middleware of the API: translates the dialect, applies the faults of calls, records each call."""

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

# Keys of `scope["extensions"]` under which `server.py` puts the functions that close a connection.
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
    ("POST", re.compile(r"/v1/responses"), "responses"),
    ("POST", re.compile(r"/v1/moderations"), "moderations"),
    ("POST", re.compile(r"/v1/images/generations"), "images.generations"),
    ("POST", re.compile(r"/v1/embeddings"), "embeddings"),
)


def call_name(method: str, path: str) -> str:
    """Return the SDK's name of a call, such as `batches.create`; `unknown` if the SDK has none."""
    return next((name for verb, pattern, name in _CALLS if verb == method and pattern.fullmatch(path)), "unknown")


class SandboxMiddleware:
    """Middleware around the API. Calls below `/sandbox` pass unchanged and are not recorded.

    Args:
        app: application.
        organization: function that returns the current organization.
        on_call: function that receives each call after its reply; `None` for none.
    """

    def __init__(
        self, app: ASGIApp, organization: Callable[[], Organization], on_call: Callable[[Call], None] | None = None
    ) -> None:
        self._app = app
        self._organization = organization
        self._on_call = on_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        organization = self._organization()
        original = scope
        refusal: ApiError | None = None
        try:
            scope = organization.state.settings.dialect.translate_scope(scope)
        except ApiError as error:
            refusal = error
        if scope["type"] != "http" or not (refusal or scope["path"].startswith("/v1")):
            await self._app(scope, receive, send)
            return
        name = "unknown" if refusal else call_name(scope["method"], scope["path"])
        arrival = organization.state.clock()
        status = 0

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        organization.worker.active_calls += 1
        try:
            fault = None if refusal else organization.state.schedule.take_call_fault(name)
            if refusal:
                await _refuse(refusal, receive, send_noting_status)
            elif fault is None:
                await self._app(scope, receive, send_noting_status)
            else:
                await self._apply(fault, scope, receive, send_noting_status)
        finally:
            organization.worker.active_calls -= 1
            query = scope["query_string"].decode("latin-1")
            call = Call(name, scope["method"], original["path"], status, arrival, query)
            organization.calls.append(call)
            if self._on_call:
                self._on_call(call)

    async def _apply(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request with a fault."""
        if fault.kind == "status":
            await _read_to_end(receive)
            await _send_reply(fault, send)
        elif fault.kind == "replace":
            await self._app(scope, receive, _discard)
            await _send_reply(fault, send)
        elif fault.kind == "cut_before":
            await _cut_connection(scope, receive, ABORT)
        elif fault.kind == "cut_after":
            await self._app(scope, receive, _discard)
            await _cut_connection(scope, receive, ABORT)
        elif fault.kind == "truncate":
            await self._truncate(scope, receive, send)
        else:
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _truncate(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the headers and half of the body, then close the connection."""
        remaining_bytes = 0

        async def send_half(message: Message) -> None:
            nonlocal remaining_bytes
            if message["type"] == "http.response.start":
                length = next(int(value) for key, value in message["headers"] if key == b"content-length")
                remaining_bytes = length // 2
                await send(message)
            elif remaining_bytes > 0:
                part = message["body"][:remaining_bytes]
                remaining_bytes -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})

        await self._app(scope, receive, send_half)
        await _cut_connection(scope, receive, CLOSE)


async def _read_to_end(receive: Receive) -> None:
    """Read a request to its end.

    If a server replies and closes in the middle of an upload, the client sees a broken connection instead of the
    status.
    """
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _refuse(refusal: ApiError, receive: Receive, send: Send) -> None:
    await _read_to_end(receive)
    await _send(refusal.status, orjson.dumps(refusal.body()), [(b"content-type", b"application/json")], send)


async def _send_reply(fault: Fault, send: Send) -> None:
    """Send the reply that a fault orders."""
    if isinstance(fault.body, str):
        body, content_type = fault.body.encode(), b"text/html; charset=utf-8"
    else:
        error = ApiError(fault.status, "The sandbox was told to fail this call.", type="server_error").body()
        body, content_type = orjson.dumps(error if fault.body is None else fault.body), b"application/json"
    headers = [(key.lower().encode(), value.encode()) for key, value in fault.headers.items()]
    await _send(fault.status, body, [(b"content-type", content_type), *headers], send)


async def _send(status: int, body: bytes, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _discard(message: Message) -> None:
    """Discard a message of a reply."""


async def _cut_connection(scope: Scope, receive: Receive, extension: str) -> None:
    """Close the connection.

    Args:
        scope: scope of the request.
        receive: receiver of the request.
        extension: `ABORT` to drop unsent data, `CLOSE` to send the data first.

    Raises:
        ConnectionResetError: if there is no connection, because the application is called in the same process.
    """
    close = scope.get("extensions", {}).get(extension)
    if close is None:
        raise ConnectionResetError("The sandbox was told to cut this connection.")
    close()
    # Wait until the server has noticed: if the application returned sooner, the server would send a reply of its own.
    while (await receive())["type"] != "http.disconnect":
        await asyncio.sleep(0)
