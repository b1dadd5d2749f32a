"""The server process: a socket, uvicorn, and the application."""

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
from .settings import Settings

_BACKLOG = 2_048


class _CuttableProtocol(H11Protocol):
    """HTTP over a connection that the application may close: ASGI has no word for that, and faults need one."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wraps the application so that each request carries the means to close this connection."""
        super().connection_made(transport)
        app: Any = self.app

        async def with_means(scope: Scope, receive: Receive, send: Send) -> None:
            # `abort` drops what is still to be sent, `close` sends it first.
            scope.setdefault("extensions", {}).update({ABORT: transport.abort, CLOSE: transport.close})
            await app(scope, receive, send)

        self.app = with_means


def serve(
    settings: Settings | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    announce: bool = False,
    parent: int | None = None,
) -> None:
    """Serves a sandbox until it is interrupted.

    Args:
        settings: how it behaves; the defaults of `Settings` if not given.
        host: where to listen.
        port: where to listen; 0 for any free port.
        announce: print one line of JSON with the `base_url` instead of words, for programs.
        parent: id of a process; the server stops when that one is no longer its parent.
    """
    app = create_app(settings)
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
            # Connections that are made to hang would hold the server up for ever.
            timeout_graceful_shutdown=1,
        )
        if parent is not None:
            threading.Thread(target=_follow, args=(parent,), daemon=True).start()
        print(json.dumps({"base_url": base_url}) if announce else _welcome(base_url), flush=True)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _welcome(base_url: str) -> str:
    return (
        f"The sandbox is listening at {base_url}. Nothing it answers costs anything. To use it:\n\n"
        f"    export OPENAI_BASE_URL={base_url}\n"
        "    export OPENAI_API_KEY=anything\n\n"
        "Stop it with Ctrl+C."
    )


def _follow(parent: int) -> None:
    """Stops this process once its parent is gone, however that went: a killed parent closes nothing itself."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
