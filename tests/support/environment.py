"""Environment of a test: paths, the key of the sandbox, and a client as a new process would load it."""

from __future__ import annotations

from pathlib import Path

import httpx

from distilabel_openai_batch.engine import calls

ROOT = Path(__file__).parents[2]
API_KEY = "sk-sandbox-key-that-must-not-leak"


def load_as_new_process(client):
    """Load an LLM or embeddings as a new process would, so that occurrences of a request are counted from 0."""
    calls.scope_memories.clear()
    client.load()
    return client


def route_host(monkeypatch, host: str, address: str) -> None:
    """Send all requests for a host to the server at an address, whatever port they name."""
    target = httpx.URL(address)
    send = httpx.AsyncHTTPTransport.handle_async_request

    async def send_to_target(transport, request):
        if request.url.host == host:
            request.url = request.url.copy_with(host=target.host, port=target.port)
            request.headers["Host"] = f"{target.host}:{target.port}"
        return await send(transport, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", send_to_target)
