"""Replies of the API with a status of success: their JSON object, and the error for a reply of another kind."""

from __future__ import annotations

from typing import Any

import orjson

# Bytes of a reply that are quoted at most; the text is shortened further after the key has been masked.
_QUOTED_BYTES = 20_000


class UnexpectedReplyError(ValueError):
    """Reply with a status of success that is not the object of the call, such as a proxy's page or an error.

    The text quotes the reply, and may contain the API key.

    Args:
        expected: the object of the call with its article ("a batch").
        reply: the reply's bytes, or its parsed JSON.
    """

    def __init__(self, expected: str, reply: object) -> None:
        content = reply if isinstance(reply, bytes) else orjson.dumps(reply)
        quoted = content[:_QUOTED_BYTES].decode(errors="replace").strip()
        super().__init__(f"The server's answer is not {expected}: {quoted or 'the reply is empty'}")


def json_object(response: Any) -> dict[str, Any]:
    """Return the JSON object in a raw response of the SDK, without the envelope that some servers put around it.

    SiliconFlow answers `{"code": 20000, "data": {…}}`: https://docs.siliconflow.cn/api-reference/batch/upload-file

    Raises:
        UnexpectedReplyError: the response is no JSON object; it may be a proxy's page with status 200.
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise UnexpectedReplyError("of this API", response.content)
    data = content.get("data")
    if isinstance(data, dict) and "id" not in content and ("id" in data or "data" in data):
        return data
    return content
