"""Receiver of webhooks: signature, age, repetition and size."""

from __future__ import annotations

import json
import threading
import time
from http.client import HTTPConnection

import openai
import pytest

from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.operations import webhooks
from distilabel_openai_batch.operations.webhooks import MAX_BYTES, WebhookReceiver, create_server
from distilabel_openai_batch.sandbox.webhooks import send_webhook, sign

SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="
pytestmark = pytest.mark.skipif(not hasattr(openai.OpenAI, "webhooks"), reason="openai below 1.92 has no webhooks")


@pytest.fixture
def events() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def receiver(events) -> WebhookReceiver:
    return WebhookReceiver(SECRET, lambda kind, batch_id: events.append((kind, batch_id)))


def make_body(kind: str = "batch.completed", batch_id: object = "batch_1") -> bytes:
    return json.dumps({"id": "evt_1", "object": "event", "type": kind, "data": {"id": batch_id}}).encode()


def signed(body: bytes, webhook_id: str = "wh_1", age: float = 0, secret: str = SECRET) -> dict[str, str]:
    return {name.lower(): value for name, value in sign(secret, webhook_id, int(time.time() - age), body).items()}


@pytest.mark.parametrize("kind", ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"])
def test_a_signed_event_is_passed_on(receiver, events, kind):
    body = make_body(kind)
    assert receiver.receive(signed(body), body) == 200
    assert events == [(kind, "batch_1")]


@pytest.mark.parametrize(
    "headers",
    [
        signed(make_body(), secret="whsec_YW5vdGhlciBzZWNyZXQ="),
        signed(make_body("batch.failed")),
        signed(make_body(), age=3_600),
        signed(make_body(), age=-3_600),
        {name: value for name, value in signed(make_body()).items() if name != "webhook-signature"},
        {},
    ],
    ids=["secret", "body", "old", "future", "unsigned", "bare"],
)
def test_a_wrong_or_old_signature_is_refused(receiver, events, headers):
    assert receiver.receive(headers, make_body()) == 400
    assert events == []


def test_a_repeated_webhook_is_handled_once(receiver, events):
    """OpenAI repeats a delivery whose reply was lost; an attacker may replay one."""
    body = make_body()
    for webhook_id in ("wh_1", "wh_1", "wh_2"):
        assert receiver.receive(signed(body, webhook_id), body) == 200
    assert len(events) == 2


@pytest.mark.parametrize(
    "body",
    [
        make_body("response.completed"),
        make_body(batch_id="../../etc"),
        make_body(batch_id=7),
        b'{"type":"batch.completed","data":[]}',
        b"[]",
    ],
)
def test_other_signed_bodies_are_answered_and_ignored(receiver, events, body):
    assert receiver.receive(signed(body), body) == 200
    assert events == []


def test_a_body_that_is_no_json_is_refused(receiver, events):
    for body in (b"{", b"\xff"):
        assert receiver.receive(signed(body), body) == 400
    assert events == []


def test_an_old_sdk_is_reported(monkeypatch):
    monkeypatch.setattr(webhooks, "_can_verify", lambda: False)
    with pytest.raises(InvalidSettingError, match=r"cannot verify webhooks. Install openai 1\.92 or newer"):
        WebhookReceiver(SECRET, lambda kind, batch_id: None)


def test_the_server_answers_webhooks_and_refuses_large_bodies(receiver, events):
    """A body without a length, or a GET, is no webhook."""
    with create_server(receiver, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def request(method: str, body: bytes | None, headers: dict[str, str]) -> int:
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            connection.putrequest(method, "/")
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            return connection.getresponse().status

        assert send_webhook(f"http://127.0.0.1:{server.server_port}/hook", SECRET, "batch.failed", "batch_7") == 200
        assert request("POST", None, {"Content-Length": str(MAX_BYTES + 1)}) == 413
        assert request("POST", None, {}) == 411
        assert request("GET", None, {}) == 501
        server.shutdown()
    assert events == [("batch.failed", "batch_7")]
