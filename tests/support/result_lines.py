"""Lines of output and error files as OpenAI writes them."""

from __future__ import annotations

import json

COMPLETION = {"id": "chatcmpl-1", "choices": [{"message": {"content": "Hello"}}]}


def line(custom_id: object, response: object = None, error: object = None) -> bytes:
    """Return a line of an output or error file."""
    fields = {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def response(body: object, status_code: object = 200) -> dict[str, object]:
    """Return the `response` field of a line."""
    return {"status_code": status_code, "request_id": "req_1", "body": body}


def api_error(message: str, **fields: object) -> dict[str, object]:
    """Return the body of a refusal by the API."""
    return {"error": {"message": message, **fields}}
