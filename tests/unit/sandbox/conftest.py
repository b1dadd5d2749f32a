"""A sandbox in this process, with a clock that a test sets, and one in a process of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest

from distilabel_openai_batch.sandbox import AnyFault, Settings, create_app

CHAT = "/v1/chat/completions"


def body(text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def request(custom_id: str, url: str = CHAT, **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body(f"About {custom_id}, please."), **more}


def requests(count: int) -> list[dict[str, Any]]:
    return [request(f"r{index}") for index in range(count)]


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Desk:
    """What a user does at the API, in few words."""

    http: httpx.AsyncClient
    now: list[float] = field(default_factory=lambda: [1_000_000.0])

    async def upload(
        self, content: bytes, filename: str = "in.jsonl", purpose: str = "batch", **form: Any
    ) -> httpx.Response:
        return await self.http.post("/v1/files", files={"file": (filename, content)}, data={"purpose": purpose, **form})

    async def create(self, lines: list[dict[str, Any]] | bytes, **more: Any) -> dict[str, Any]:
        """Uploads, creates, and returns once the work is done, whatever the clock says."""
        uploaded = await self.upload(lines if isinstance(lines, bytes) else jsonl(lines))
        order = {"input_file_id": uploaded.json()["id"], "endpoint": CHAT, "completion_window": "24h", **more}
        created = await self.http.post("/v1/batches", json=order)
        assert created.status_code == 200, created.text
        await self.http.post("/sandbox/settle")
        return created.json()

    async def look(self, batch: dict[str, Any]) -> dict[str, Any]:
        return (await self.http.get(f"/v1/batches/{batch['id']}")).json()

    async def run(self, lines: list[dict[str, Any]] | bytes, **more: Any) -> dict[str, Any]:
        return await self.look(await self.create(lines, **more))

    async def cancel(self, batch: dict[str, Any]) -> httpx.Response:
        return await self.http.post(f"/v1/batches/{batch['id']}/cancel")

    async def read(self, file_id: str | None) -> list[dict[str, Any]]:
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

    def wait(self, seconds: float) -> None:
        self.now[0] += seconds


@pytest.fixture
async def desk():
    """A sandbox whose clock stands still until the test waits."""
    now = [1_000_000.0]
    app = create_app(Settings(), clock=lambda: now[0])
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": "Bearer key"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=headers) as http,
    ):
        yield Desk(http, now)


@pytest.fixture
def client(sandbox):
    """The official client, on a real socket; it retries nothing by itself."""
    with openai.OpenAI(base_url=sandbox.base_url, api_key="anything", max_retries=0) as client:
        yield client
