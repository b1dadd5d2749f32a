"""Server process: socket, uvicorn and application."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from asyncio import Transport
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import create_app
from .middleware import ABORT, CLOSE
from .records import Call
from .settings import Settings

_BACKLOG = 2_048
_PARENT_CHECK_SECONDS = 0.2


class _CuttableProtocol(H11Protocol):
    """HTTP protocol that lets the application close the connection; faults need this, and ASGI has no such message."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Add to each request the functions that close the connection."""
        super().connection_made(transport)
        app: Any = self.app

        async def app_with_close(scope: Scope, receive: Receive, send: Send) -> None:
            # `abort` drops unsent data, `close` sends the data first.
            scope.setdefault("extensions", {}).update({ABORT: transport.abort, CLOSE: transport.close})
            await app(scope, receive, send)

        self.app = app_with_close


def serve(
    settings: Settings | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    announce: bool = False,
    parent: int | None = None,
    log: bool = False,
) -> None:
    """Serve a sandbox until the process is interrupted.

    Args:
        settings: settings of the sandbox; `None` for the defaults of `Settings`.
        host: address to listen at.
        port: port to listen at; 0 for any free port.
        announce: print one line of JSON with the `base_url` instead of a text.
        parent: id of the parent process; the server stops when the parent is gone. `None` for no such check.
        log: print a line for each call of the API.

    Raises:
        OSError: if the port is taken.
    """
    settings = settings or Settings()
    app = create_app(settings, on_call=_print_call if log else None)
    with socket.create_server((host, port), backlog=_BACKLOG, family=_family(host)) as listener:
        address = f"[{host}]" if ":" in host else host
        base_url = f"http://{address}:{listener.getsockname()[1]}/v1"
        config = uvicorn.Config(
            app,
            http=_CuttableProtocol,
            loop="asyncio",
            ws="none",
            log_level="warning",
            access_log=False,
            backlog=_BACKLOG,
            # The fault `hang` holds connections open, so wait only a second for them at shutdown.
            timeout_graceful_shutdown=1,
        )
        if parent is not None:
            threading.Thread(target=_stop_without_parent, args=(parent,), daemon=True).start()
        print(json.dumps({"base_url": base_url}) if announce else _greeting(base_url, settings), flush=True)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def _print_call(call: Call) -> None:
    moment = time.strftime("%H:%M:%S", time.localtime(call.time))
    query = f"?{call.query}" if call.query else ""
    print(f"{moment} {call.method} {call.path}{query} {call.status or 'no reply'}", flush=True)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _greeting(base_url: str, settings: Settings) -> str:
    """Return the text that a user reads at the start; keys and values of headers stay out of the terminal."""
    dialect = settings.dialect
    key = "anything" if settings.api_keys is None else "…    # one of `api_keys`"
    address, variables = base_url, {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": key}
    if dialect.azure:
        root = base_url.removesuffix("/v1")
        address = f"{root}/openai/v1/" if dialect.azure_versioned else root
        variables = {"AZURE_OPENAI_ENDPOINT": address, "AZURE_OPENAI_API_KEY": key}
        variables |= {} if dialect.azure_versioned else {"OPENAI_API_VERSION": "2024-10-21"}
    if settings.required_headers:
        variables["OPENAI_CUSTOM_HEADERS"] = f"…    # with {', '.join(settings.required_headers)}"
    prices = "azure" if dialect.azure else "openai"
    return "\n".join(
        (
            f"The sandbox is listening at {address}. Answers cost nothing. To use the sandbox:",
            "",
            *(f"    export {name}={value}" for name, value in variables.items()),
            "",
            "To rehearse costs and a budget, with list prices:",
            "",
            f"    export DISTILABEL_OPENAI_BATCH_PRICES={prices}",
            "",
            "Stop the sandbox with Ctrl+C.",
        )
    )


def _stop_without_parent(parent: int) -> None:
    """Stop this process when its parent is gone; a killed parent cannot stop its children."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
