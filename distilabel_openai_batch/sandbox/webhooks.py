"""Webhooks about batches, signed as OpenAI signs them.

https://platform.openai.com/docs/guides/webhooks, https://github.com/standard-webhooks/standard-webhooks
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import orjson


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a webhook.

    Args:
        secret: secret of the webhook: `whsec_` and the key in base64.
        webhook_id: id of the webhook.
        timestamp: time of the signature, in seconds since the epoch.
        body: body of the webhook.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = hmac.new(key, b"%b.%d.%b" % (webhook_id.encode(), timestamp, body), hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def send_webhook(url: str, secret: str, event_type: str, batch_id: str) -> int:
    """Send a webhook about a batch, and return the HTTP status of the reply.

    Args:
        url: address of the receiver.
        secret: secret of the webhook.
        event_type: type of the event, such as `batch.completed`.
        batch_id: id of the batch.
    """
    now = int(time.time())
    event = {"id": f"evt_{uuid.uuid4().hex}", "object": "event", "created_at": now, "type": event_type}
    body = orjson.dumps(event | {"data": {"id": batch_id}})
    address = urlsplit(url)
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=10)) as connection:
        headers = sign(secret, f"wh_{uuid.uuid4().hex}", now, body)
        connection.request("POST", address.path or "/", body, headers)
        return connection.getresponse().status
