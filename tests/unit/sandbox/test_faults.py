"""Faults of calls, as the official client sees them on a real socket."""

import contextlib
import io
import time

import httpx
import openai
import pytest

from distilabel_openai_batch.sandbox import Fault, RequestFailure

from .conftest import CHAT, batch_line, batch_lines, jsonl


def upload(client, content=b"{}\n"):
    return client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")


def create_batch(client, file_id):
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


CALLS = {
    "files.create": lambda client: upload(client),
    "files.list": lambda client: client.files.list(),
    "files.retrieve": lambda client: client.files.retrieve("file-x"),
    "files.content": lambda client: client.files.content("file-x"),
    "files.delete": lambda client: client.files.delete("file-x"),
    "batches.create": lambda client: create_batch(client, "file-x"),
    "batches.list": lambda client: client.batches.list(),
    "batches.retrieve": lambda client: client.batches.retrieve("batch_x"),
    "batches.cancel": lambda client: client.batches.cancel("batch_x"),
    "chat.completions": lambda client: client.chat.completions.create(**batch_line("a")["body"]),
    "completions": lambda client: client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x"),
    "embeddings": lambda client: client.embeddings.create(model="text-embedding-3-small", input="x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_call_fails_by_name(sandbox, client, call):
    """The call fails once, with the given status; other calls pass."""
    sandbox.add_fault(Fault(call=call, kind="status", status=503, headers={"Retry-After": "7"}))
    for name, make in CALLS.items():
        if name != call:
            with contextlib.suppress(openai.NotFoundError):
                make(client)
    with pytest.raises(openai.APIStatusError) as caught:
        CALLS[call](client)
    assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "7")
    assert caught.value.body["type"] == "server_error"
    assert [entry.status for entry in sandbox.calls(call)] == [503]


def test_fault_skips_calls_then_repeats(sandbox, client):
    """`skip` calls pass, then `times` calls fail; `any` matches every call; -1 lasts until the faults are cleared."""

    def list_fails():
        try:
            client.batches.list()
        except openai.InternalServerError:
            return True
        return False

    sandbox.add_fault(Fault(call="any", kind="status", skip=2, times=3))
    assert [list_fails() for _ in range(7)] == [False, False, True, True, True, False, False]
    sandbox.add_fault(Fault(call="batches.list", kind="status", times=-1))
    assert all(list_fails() for _ in range(5))
    sandbox.clear_faults()
    assert not list_fails()


def test_a_replaced_reply_comes_after_the_effect(sandbox, client):
    """The batch exists, although its creation was answered with other content."""
    file = upload(client, jsonl(batch_lines(1)))
    sandbox.add_fault(Fault(call="batches.create", kind="replace", status=200, body={"error": {"message": "Odd."}}))
    assert create_batch(client, file.id).id is None
    assert len(client.batches.list().data) == 1
    assert [call.status for call in sandbox.calls("batches.create")] == [200]


def test_error_body_may_be_html_or_json(sandbox, client):
    """Send 502 with HTML, as a gateway does, or any JSON."""
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=502, body="<html>Bad gateway</html>"))
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=400, body={"error": {"code": "odd"}}))
    with pytest.raises(openai.InternalServerError) as caught:
        client.batches.list()
    assert caught.value.response.headers["content-type"].startswith("text/html")
    assert caught.value.response.text == "<html>Bad gateway</html>"
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.list()
    assert caught.value.code == "odd"


def test_cut_before_creates_no_batch(sandbox, client):
    """The client sees a lost connection."""
    file_id = upload(client).id
    sandbox.add_fault(Fault(call="batches.create", kind="cut_before"))
    with pytest.raises(openai.APIConnectionError):
        create_batch(client, file_id)
    assert client.batches.list().data == []
    assert [call.status for call in sandbox.calls("batches.create")] == [0]


def test_cut_after_creates_a_batch(sandbox, client):
    """The client sees a lost connection."""
    file_id = upload(client).id
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))
    with pytest.raises(openai.APIConnectionError):
        create_batch(client, file_id)
    assert len(client.batches.list().data) == 1


def test_official_client_creates_duplicates_when_replies_are_lost(sandbox):
    """Each retry of the client creates one more batch."""
    with openai.OpenAI(base_url=sandbox.base_url, api_key="anything", max_retries=2) as client:
        file_id = upload(client).id
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=2))
        create_batch(client, file_id)
        assert len(client.batches.list().data) == 3


@pytest.mark.parametrize("size", [1_000, 5_000_000])
def test_upload_can_be_cut(sandbox, client, size):
    """The upload leaves no file, whatever its size."""
    sandbox.add_fault(Fault(call="files.create", kind="cut_before"))
    with pytest.raises(openai.APIConnectionError):
        upload(client, b"x" * size)
    assert client.files.list().data == []
    assert upload(client, b"x" * size).bytes == size


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_truncated_download_can_be_resumed(sandbox, client, size):
    """Half of the content arrives, then the connection ends; a range gets the rest."""
    content = bytes(index % 251 for index in range(size))
    file_id = upload(client, content).id
    sandbox.add_fault(Fault(call="files.content", kind="truncate"))
    received = b""
    url, headers = f"{sandbox.base_url}/files/{file_id}/content", {"Authorization": "Bearer anything"}
    with httpx.stream("GET", url, headers=headers, trust_env=False) as reply:
        assert int(reply.headers["content-length"]) == size
        parts = reply.iter_bytes()
        with pytest.raises(httpx.RemoteProtocolError, match="closed"):  # noqa: PT012
            for part in parts:
                received += part
    assert received == content[: len(received)]
    assert len(received) <= size // 2
    rest = client.files.content(file_id, extra_headers={"Range": f"bytes={len(received)}-"}).content
    assert received + rest == content


def test_call_can_hang(sandbox, client):
    """The client times out; the server goes on serving other calls."""
    sandbox.add_fault(Fault(call="batches.list", kind="hang"))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).batches.list()
    assert client.batches.list().data == []


def test_invalid_fault_is_refused(sandbox):
    """The error names the invalid field."""
    with pytest.raises(ValueError, match="call"):
        sandbox._control("POST", "faults", {"call": "files.eat", "kind": "status"})


def test_whole_job_runs_through_the_official_client(sandbox, client):
    """Upload, create, wait and download with typed objects."""
    batch = create_batch(client, upload(client, jsonl(batch_lines(10))).id)
    for _ in range(500):
        if batch.status == "completed":
            break
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    assert batch.request_counts.completed == 10
    assert batch.to_dict()["usage"]["output_tokens"] > 0
    assert client.files.content(batch.output_file_id).text.count("\n") == 10
    assert client.files.wait_for_processing(batch.output_file_id).status == "processed"


def test_share_of_requests_fails_repeatably():
    """The body decides; without `share` every matching request fails, and no other request does."""
    bodies = [f'{{"number":{n}}}'.encode() for n in range(1_000)]
    failing = [RequestFailure(contains="number", share=0.2).matches(body) for body in bodies]
    assert 150 < sum(failing) < 250
    assert failing == [RequestFailure(contains="number", share=0.2).matches(body) for body in bodies]
    assert all(RequestFailure(contains="number").matches(body) for body in bodies)
    assert not any(RequestFailure(contains="letter").matches(body) for body in bodies)
