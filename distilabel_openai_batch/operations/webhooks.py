"""Receiver of OpenAI's webhooks about batches: each event is verified, and wakes the runs that wait.

https://platform.openai.com/docs/guides/webhooks
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai

from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.replies import is_id
from distilabel_openai_batch.errors import InvalidSettingError

# An event about a batch has some 200 bytes.
MAX_BYTES = 65_536
"""Bytes of a webhook's body, at most."""

# Ids of handled webhooks that are remembered. OpenAI repeats a delivery for up to 72 hours; the SDK refuses signatures
# that are older than five minutes.
_REMEMBERED_IDS = 10_000

_EVENTS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")

# Seconds that a sender may be silent.
_TIMEOUT_SECONDS = 10.0


class WebhookReceiver:
    """Verify webhooks, and pass each event about a batch on once.

    Args:
        secret: the secret of the webhook, `whsec_…`.
        on_event: receives the type of an event and the id of its batch.

    Raises:
        InvalidSettingError: the installed `openai` cannot verify webhooks.
    """

    def __init__(self, secret: str, on_event: Callable[[str, str], None]) -> None:
        client: Any = openai.OpenAI(api_key="unused", webhook_secret=secret) if _can_verify() else None
        if client is None:
            raise InvalidSettingError(
                f"openai {openai.__version__} cannot verify webhooks. Install openai 1.92 or newer: `pip install -U"
                " openai`"
            )
        self._webhooks = client.webhooks
        self._on_event = on_event
        self._handled: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Handle the body of a webhook.

        Args:
            headers: the headers, by their names in lower case.
            body: the body as received.

        Returns:
            The HTTP status of the reply: 200 for an event, also for a repeated one; 400 for a wrong or an old
            signature, and for a body that is no event.
        """
        try:
            # The text of an unusual byte would be another text → the SDK gets the bytes' own text.
            self._webhooks.unwrap(body.decode(), dict(headers))
            event = decode_json(body)
        except (openai.OpenAIError, ValueError):
            return 400
        if not isinstance(event, dict) or not self._is_new(headers.get("webhook-id", "")):
            return 200
        kind, data = event.get("type"), event.get("data")
        batch_id = data.get("id") if isinstance(data, dict) else None
        if kind in _EVENTS and is_id(batch_id):
            self._on_event(str(kind), batch_id)
        return 200

    def _is_new(self, webhook_id: str) -> bool:
        """Return whether a webhook is handled for the first time; the sender repeats a delivery that seems to fail."""
        with self._lock:
            if webhook_id in self._handled:
                return False
            self._handled[webhook_id] = None
            if len(self._handled) > _REMEMBERED_IDS:
                self._handled.popitem(last=False)
            return True


def _can_verify() -> bool:
    return hasattr(openai.OpenAI, "webhooks")


def create_server(receiver: WebhookReceiver, host: str, port: int) -> ThreadingHTTPServer:
    """Create an HTTP server that passes each POST to a receiver, whatever the path.

    Args:
        receiver: handles the webhooks.
        host: the address to listen on.
        port: the port; 0 for a free one.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdigit() or int(length) > MAX_BYTES:
                self._reply(413 if length.isdigit() else 411)
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._reply(receiver.receive(headers, self.rfile.read(int(length))))

        def _reply(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: the command prints each event."""

    return ThreadingHTTPServer((host, port), Handler)
