"""Replies of the API with a status of success: their JSON object, and the error for a reply of another kind."""

from __future__ import annotations

from typing import Any, TypeGuard

import orjson

from distilabel_openai_batch.api.encoding import encode_json

# Bytes of a reply that are quoted at most; the text is shortened further after the key has been masked.
_QUOTED_BYTES = 20_000


class ReplyError(ValueError):
    """Reply with a status of success that the call cannot use; the server may reply otherwise at the next attempt."""


class UnexpectedReplyError(ReplyError):
    """Reply with a status of success that is not the object of the call, such as a proxy's page or an error.

    The text quotes the reply, and may contain the API key.

    Args:
        expected: the object of the call with its article ("a batch").
        reply: the reply's bytes, or its parsed JSON.
    """

    def __init__(self, expected: str, reply: object) -> None:
        content = reply if isinstance(reply, bytes) else _encode(reply)
        quoted = content[:_QUOTED_BYTES].decode(errors="replace").strip()
        super().__init__(f"The server's answer is not {expected}: {quoted or 'the reply is empty'}")


# Characters of an id at most: LiteLLM's encoded ids have a few hundred.
_ID_CHARACTERS = 2_000

# Characters that would change the URL of a call.
_NO_ID_CHARACTERS = frozenset(" ?#%\\")


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value can be the id of a batch or a file: a text that is safe in the path of a URL.

    Gemini's ids contain a slash (`batches/123`), so a slash is allowed, and `..` between slashes is not.
    """
    if not isinstance(value, str) or not 0 < len(value) <= _ID_CHARACTERS or not value.isprintable():
        return False
    return _NO_ID_CHARACTERS.isdisjoint(value) and {".", ".."}.isdisjoint(value.split("/"))


def _encode(reply: object) -> bytes:
    try:
        return encode_json(reply)
    except (ValueError, RecursionError):
        return repr(type(reply)).encode()


def json_object(response: Any, wrapper: str = "data") -> dict[str, Any]:
    """Return the JSON object in a raw response of the SDK, without the envelope that some servers put around it.

    SiliconFlow answers `{"code": 20000, "data": {…}}`: https://docs.siliconflow.cn/api-reference/batch/upload-file.
    Together answers a creation with `{"job": {…}}`: https://docs.together.ai/reference/batch-create

    Args:
        response: the response.
        wrapper: the name of the object in an envelope, beside `data`.

    Raises:
        UnexpectedReplyError: the response is no JSON object; it may be a proxy's page with status 200.
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise UnexpectedReplyError("of this API", response.content)
    for name in ("data", wrapper):
        data = content.get(name)
        if isinstance(data, dict) and "id" not in content and ("id" in data or "data" in data):
            return data
    return content


def json_list(response: Any) -> list[Any] | None:
    """Return the list in a raw response of the SDK: a bare array, or `data` of an object; `None` for no list.

    Together answers with a bare array: https://docs.together.ai/reference/batch-list
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    if isinstance(content, dict):
        content = json_object(response).get("data")
    return content if isinstance(content, list) else None
