"""Fixtures and helpers: a sandbox in this process, with a clock that the test sets, and the official client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from distilabel_openai_batch.sandbox import AnyFault, Settings, create_app

CHAT = "/v1/chat/completions"


def chat_body(text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def batch_line(custom_id: str, url: str = CHAT, **more: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": url,
        "body": chat_body(f"About {custom_id}, please."),
        **more,
    }


def batch_lines(count: int) -> list[dict[str, Any]]:
    return [batch_line(f"r{index}") for index in range(count)]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class ApiClient:
    """Client of a sandbox in this process.

    Attributes:
        http: HTTP client with an API key.
        now: time of the sandbox, in seconds since the epoch, as a list of one number.
    """

    http: httpx.AsyncClient
    now: list[float] = field(default_factory=lambda: [1_000_000.0])

    async def upload(
        self, content: bytes, filename: str = "in.jsonl", purpose: str = "batch", **form: Any
    ) -> httpx.Response:
        return await self.http.post("/v1/files", files={"file": (filename, content)}, data={"purpose": purpose, **form})

    async def create_batch(self, lines: list[dict[str, Any]] | bytes, **more: Any) -> dict[str, Any]:
        """Upload the lines, create a batch, and wait until the threads have finished, whatever the clock says."""
        uploaded = await self.upload(lines if isinstance(lines, bytes) else jsonl(lines))
        creation = {"input_file_id": uploaded.json()["id"], "endpoint": CHAT, "completion_window": "24h", **more}
        created = await self.http.post("/v1/batches", json=creation)
        assert created.status_code == 200, created.text
        await self.http.post("/sandbox/settle")
        return created.json()

    async def get_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        return (await self.http.get(f"/v1/batches/{batch['id']}")).json()

    async def run_batch(self, lines: list[dict[str, Any]] | bytes, **more: Any) -> dict[str, Any]:
        return await self.get_batch(await self.create_batch(lines, **more))

    async def cancel_batch(self, batch: dict[str, Any]) -> httpx.Response:
        return await self.http.post(f"/v1/batches/{batch['id']}/cancel")

    async def read_lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        content = (await self.http.get(f"/v1/files/{file_id}/content")).text
        return [json.loads(line) for line in content.splitlines()]

    async def configure(self, **settings: Any) -> None:
        (await self.http.patch("/sandbox/settings", json=settings)).raise_for_status()

    async def add_fault(self, fault: AnyFault) -> None:
        (await self.http.post("/sandbox/faults", json=fault.model_dump(mode="json"))).raise_for_status()

    async def books(self) -> dict[str, Any]:
        return (await self.http.get("/sandbox/books")).json()

    def advance_clock(self, seconds: float) -> None:
        self.now[0] += seconds


@pytest.fixture
async def api():
    """Client of a sandbox whose clock stands still until the test advances the clock."""
    now = [1_000_000.0]
    app = create_app(Settings(), clock=lambda: now[0])
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": "Bearer key"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers) as http,
    ):
        yield ApiClient(http, now)


@pytest.fixture
def client(sandbox):
    """Official client, on a real socket and without retries."""
    with openai.OpenAI(base_url=sandbox.base_url, api_key="anything", max_retries=0) as client:
        yield client
