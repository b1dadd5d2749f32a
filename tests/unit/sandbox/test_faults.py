"""Calls that go wrong on purpose, as the official client sees them on a real socket."""

import contextlib
import io
import time

import httpx
import openai
import pytest

from distilabel_openai_batch.sandbox import Fault, RequestFailure

from .conftest import CHAT, jsonl, request, requests


def upload(client, content=b"{}\n"):
    return client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")


def create(client, file_id):
    return client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


CALLS = {
    "files.create": lambda client: upload(client),
    "files.list": lambda client: client.files.list(),
    "files.retrieve": lambda client: client.files.retrieve("file-x"),
    "files.content": lambda client: client.files.content("file-x"),
    "files.delete": lambda client: client.files.delete("file-x"),
    "batches.create": lambda client: create(client, "file-x"),
    "batches.list": lambda client: client.batches.list(),
    "batches.retrieve": lambda client: client.batches.retrieve("batch_x"),
    "batches.cancel": lambda client: client.batches.cancel("batch_x"),
    "chat.completions": lambda client: client.chat.completions.create(**request("a")["body"]),
    "completions": lambda client: client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x"),
    "embeddings": lambda client: client.embeddings.create(model="text-embedding-3-small", input="x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_call_can_be_made_to_fail_by_its_name(sandbox, client, call):
    """Once, with the status that was set; other calls are left alone."""
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


def test_a_fault_lets_so_many_calls_through_and_then_happens_so_often(sandbox, client):
    """`skip`, then `times`; `any` concerns every call; -1 lasts until it is cleared."""

    def fails():
        try:
            client.batches.list()
        except openai.InternalServerError:
            return True
        return False

    sandbox.add_fault(Fault(call="any", kind="status", skip=2, times=3))
    assert [fails() for _ in range(7)] == [False, False, True, True, True, False, False]
    sandbox.add_fault(Fault(call="batches.list", kind="status", times=-1))
    assert all(fails() for _ in range(5))
    sandbox.clear_faults()
    assert not fails()


def test_an_error_may_be_a_page(sandbox, client):
    """502 with HTML, as a gateway sends it; or any JSON."""
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=502, body="<html>Bad gateway</html>"))
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=400, body={"error": {"code": "odd"}}))
    with pytest.raises(openai.InternalServerError) as caught:
        client.batches.list()
    assert caught.value.response.headers["content-type"].startswith("text/html")
    assert caught.value.response.text == "<html>Bad gateway</html>"
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.list()
    assert caught.value.code == "odd"


def test_a_connection_cut_before_the_effect_leaves_nothing(sandbox, client):
    """The client sees a lost connection, and no batch was made."""
    file_id = upload(client).id
    sandbox.add_fault(Fault(call="batches.create", kind="cut_before"))
    with pytest.raises(openai.APIConnectionError):
        create(client, file_id)
    assert client.batches.list().data == []
    assert [call.status for call in sandbox.calls("batches.create")] == [0]


def test_a_connection_cut_after_the_effect_leaves_a_batch(sandbox, client):
    """The client sees a lost connection; the batch was made nevertheless."""
    file_id = upload(client).id
    sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))
    with pytest.raises(openai.APIConnectionError):
        create(client, file_id)
    assert len(client.batches.list().data) == 1


def test_the_official_client_buys_twice_when_a_reply_is_lost(sandbox):
    """Its own retries make one batch each: what the faults are there to show."""
    with openai.OpenAI(base_url=sandbox.base_url, api_key="anything", max_retries=2) as client:
        file_id = upload(client).id
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=2))
        create(client, file_id)
        assert len(client.batches.list().data) == 3


@pytest.mark.parametrize("size", [1_000, 5_000_000])
def test_an_upload_can_be_cut(sandbox, client, size):
    """However much of it was on its way."""
    sandbox.add_fault(Fault(call="files.create", kind="cut_before"))
    with pytest.raises(openai.APIConnectionError):
        upload(client, b"x" * size)
    assert client.files.list().data == []
    assert upload(client, b"x" * size).bytes == size


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_download_can_be_truncated_and_taken_up_again(sandbox, client, size):
    """Half of it comes, then the connection ends; the rest can be had as a range."""
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


def test_a_call_can_hang(sandbox, client):
    """Until the client gives up; the server goes on serving others."""
    sandbox.add_fault(Fault(call="batches.list", kind="hang"))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).batches.list()
    assert client.batches.list().data == []


def test_a_fault_that_makes_no_sense_is_refused(sandbox):
    """With the reason."""
    with pytest.raises(ValueError, match="call"):
        sandbox._ask("POST", "faults", {"call": "files.eat", "kind": "status"})


def test_a_whole_job_runs_through_the_official_client(sandbox, client):
    """Upload, create, wait, download: typed objects all the way."""
    batch = create(client, upload(client, jsonl(requests(10))).id)
    for _ in range(500):
        if batch.status == "completed":
            break
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    assert batch.request_counts.completed == 10
    assert batch.to_dict()["usage"]["output_tokens"] > 0
    assert client.files.content(batch.output_file_id).text.count("\n") == 10
    assert client.files.wait_for_processing(batch.output_file_id).status == "processed"


def test_a_share_of_requests_fails_the_same_ones_each_time():
    """About so many, decided by what they say; all without a share, and none of those that it does not concern."""
    bodies = [f'{{"number":{n}}}'.encode() for n in range(1_000)]
    some = [RequestFailure(contains="number", share=0.2).concerns(body) for body in bodies]
    assert 150 < sum(some) < 250
    assert some == [RequestFailure(contains="number", share=0.2).concerns(body) for body in bodies]
    assert all(RequestFailure(contains="number").concerns(body) for body in bodies)
    assert not any(RequestFailure(contains="letter").concerns(body) for body in bodies)
