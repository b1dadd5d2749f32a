"""The JSON object of a reply, its envelope, and the quotation of any other reply."""

from __future__ import annotations

import httpx
import pytest

from distilabel_openai_batch.api.replies import UnexpectedReplyError, json_object


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b"null", b'"text"', b'{"id"'])
def test_only_a_json_object_is_a_reply_of_this_api(content):
    """The error quotes the reply."""
    with pytest.raises(UnexpectedReplyError, match="not of this API") as caught:
        json_object(httpx.Response(200, content=content))
    assert content.decode() in str(caught.value)
    assert json_object(httpx.Response(200, content=b'{"id":1}')) == {"id": 1}


def test_an_empty_reply_is_named_in_the_error():
    with pytest.raises(UnexpectedReplyError, match="the reply is empty"):
        json_object(httpx.Response(200, content=b""))


@pytest.mark.parametrize("content", [{"id": "file-1"}, {"object": "list", "data": [{"id": "file-1"}]}])
def test_an_envelope_is_removed(content):
    """SiliconFlow wraps an object or a list; a list alone has `data` too, and is no envelope."""
    envelope = {"code": 20000, "message": "Ok", "status": True, "data": content}
    assert json_object(httpx.Response(200, json=envelope)) == content
    assert json_object(httpx.Response(200, json=content)) == content


@pytest.mark.parametrize(
    "content", [{"code": 1, "data": {}}, {"data": {"x": 1}}, {"id": "b", "data": {"id": "x"}}, {"data": None}]
)
def test_an_object_without_an_enveloped_object_stays_whole(content):
    assert json_object(httpx.Response(200, json=content)) == content


def test_parsed_json_is_quoted():
    assert str(UnexpectedReplyError("a file", {"error": "no"})) == (
        'The server\'s answer is not a file: {"error":"no"}'
    )
