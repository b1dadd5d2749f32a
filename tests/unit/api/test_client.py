"""The calls to the server: what is sent, what is waited out, what is raised, and that nothing is bought twice."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
import respx

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import client, creation, files, transport
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.creation import CREATION_SECONDS, CreationLimit
from distilabel_openai_batch.api.files import FILE_VISIBLE_SECONDS, RESULTS_VISIBLE_SECONDS
from distilabel_openai_batch.api.transport import Patience

BASE_URL = "https://api.example.com/v1"
API_KEY = "sk-this-key-must-not-leak"
CHAT = "/v1/chat/completions"
LOGGER = logging.getLogger("test_api")
NOW = 1_700_000_000.0
INPUT = b'{"custom_id":"a"}\n{"custom_id":"b"}\n'


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return NOW + self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (client, creation, files, transport):
        monkeypatch.setattr(module, "time", clock)
    for module in (creation, files, transport):
        monkeypatch.setattr(module, "anyio", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture
def server():
    with respx.mock(base_url=BASE_URL, assert_all_called=False) as router:
        # After an upload that took several attempts, files of those are looked for.
        router.get("/files").mock(return_value=httpx.Response(200, json={"object": "list", "data": []}))
        yield router


@asynccontextmanager
async def connected(base_url: str = BASE_URL, patience: Patience | None = None) -> AsyncIterator[BatchAPI]:
    http_client = httpx.AsyncClient()
    client = openai.AsyncOpenAI(base_url=base_url, api_key=API_KEY, http_client=http_client, max_retries=5)
    async with client:
        yield BatchAPI(client, patience or Patience(), LOGGER)


@pytest.fixture
async def api(clock, server):
    async with connected() as api:
        yield api


@pytest.fixture
def input_file(tmp_path) -> Path:
    path = tmp_path / "input.jsonl"
    path.write_bytes(INPUT)
    return path


def batch(batch_id: str = "batch_1", status: str = "validating", **fields: object) -> dict[str, object]:
    """A batch object as the server writes it."""
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": CHAT,
        "errors": None,
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": status,
        "created_at": int(NOW),
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": {},
        **fields,
    }


def listing(*batches: dict[str, object], has_more: bool = False) -> httpx.Response:
    """A page of `GET /batches`."""
    return httpx.Response(200, json={"object": "list", "data": list(batches), "has_more": has_more})


def refused(status_code: int, message: str = "No.", headers: dict[str, str] | None = None, **fields: object):
    """An answer of the API that says no."""
    body = {"error": {"message": message, "type": "error_type", "param": None, "code": None, **fields}}
    return httpx.Response(status_code, json=body, headers=headers)


@dataclass
class Call:
    """One of the calls, the route that it takes, and what the server answers when all is well."""

    method: str
    path: str
    make: Callable[[BatchAPI, Path], Awaitable[object]]
    good: httpx.Response

    def route(self, server: respx.Router) -> respx.Route:
        return server.request(self.method, self.path)


CALLS = {
    "upload": Call(
        "POST",
        "/files",
        lambda api, path: api.files.upload(path),
        httpx.Response(200, json={"id": "file-1", "object": "file", "purpose": "batch"}),
    ),
    "create": Call(
        "POST",
        "/batches",
        lambda api, path: api.create("file-1", CHAT, "24h", "key", {}),
        httpx.Response(200, json=batch()),
    ),
    "retrieve": Call(
        "GET", "/batches/batch_1", lambda api, path: api.retrieve("batch_1"), httpx.Response(200, json=batch())
    ),
    "list": Call(
        "GET",
        "/batches",
        lambda api, path: api.retrieve_many({"batch_1", "batch_2"}),
        listing(batch("batch_2"), batch("batch_1")),
    ),
    "cancel": Call(
        "POST", "/batches/batch_1/cancel", lambda api, path: api.cancel("batch_1"), httpx.Response(200, json=batch())
    ),
    "download": Call(
        "GET",
        "/files/file-2/content",
        lambda api, path: api.files.download("file-2", path.with_name("output.jsonl")),
        httpx.Response(200, content=INPUT),
    ),
}


@pytest.fixture(params=CALLS.values(), ids=CALLS.keys())
def call(request, server) -> Call:
    """Each of the calls in turn; a lost creation finds an empty list of batches."""
    if request.param.path == "/batches" and request.param.method == "POST":
        server.get("/batches").mock(return_value=listing())
    return request.param


# What is sent.


async def test_an_upload_sends_the_file_for_a_batch(api, server, input_file):
    """Bytes unchanged, a name that ends in .jsonl, and the purpose that the API asks for."""
    route = CALLS["upload"].route(server).mock(return_value=CALLS["upload"].good)
    assert await api.files.upload(input_file) == "file-1"
    request = route.calls.last.request
    assert request.headers["content-type"].startswith("multipart/form-data")
    assert request.headers["authorization"] == f"Bearer {API_KEY}"
    assert b'name="purpose"\r\n\r\nbatch\r\n' in request.content
    assert b'name="file"; filename="input.jsonl"' in request.content
    assert b"\r\n\r\n" + INPUT + b"\r\n" in request.content


async def test_a_creation_carries_the_key_by_which_it_is_found(api, server):
    """The key goes into the metadata beside the user's own."""
    route = CALLS["create"].route(server).mock(return_value=CALLS["create"].good)
    created = await api.create("file-1", CHAT, "24h", "the-key", {"project": "demo"})
    assert (created.id, created.status) == ("batch_1", "validating")
    assert json.loads(route.calls.last.request.content) == {
        "input_file_id": "file-1",
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {KEY_METADATA: "the-key", "project": "demo"},
    }


async def test_a_look_at_one_batch_is_one_request(api, server):
    """Nothing is listed for it."""
    answer = batch(status="COMPLETED", output_file_id="file-2", error_file_id="", request_counts=None)
    CALLS["retrieve"].route(server).mock(return_value=httpx.Response(200, json=answer))
    found = await api.retrieve_many({"batch_1"})
    assert {key: value.status for key, value in found.items()} == {"batch_1": "completed"}
    assert (found["batch_1"].output_file_id, found["batch_1"].error_file_id) == ("file-2", None)
    assert len(server.calls) == 1


async def test_a_look_at_several_batches_is_one_request(api, server):
    """A page of 100 serves all of them; what is not ours on it is left out."""
    route = CALLS["list"].route(server)
    route.mock(return_value=listing(batch("other"), batch("batch_2", "completed"), batch("batch_1")))
    found = await api.retrieve_many({"batch_1", "batch_2"})
    assert {key: value.status for key, value in found.items()} == {"batch_1": "validating", "batch_2": "completed"}
    assert route.calls.last.request.url.params["limit"] == "100"
    assert len(server.calls) == 1


async def test_a_batch_that_the_page_does_not_show_is_looked_at_by_itself(api, server):
    """A project with more than a hundred newer batches loses none of ours."""
    CALLS["list"].route(server).mock(return_value=listing(batch("batch_2"), has_more=True))
    alone = CALLS["retrieve"].route(server).mock(return_value=CALLS["retrieve"].good)
    assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert alone.call_count == 1


@pytest.mark.parametrize("status_code", [404, 405, 501])
async def test_without_a_list_each_batch_is_looked_at_by_itself(api, server, clock, status_code):
    """A server that cannot list its batches is asked for a list once, and never again."""
    pages = CALLS["list"].route(server).mock(return_value=refused(status_code))
    server.get("/batches/batch_1").mock(return_value=httpx.Response(200, json=batch("batch_1")))
    server.get("/batches/batch_2").mock(return_value=httpx.Response(200, json=batch("batch_2")))
    for _ in range(3):
        assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert pages.call_count == 1
    assert clock.slept == []


async def test_a_batch_is_cancelled_once(api, server):
    """One request, whatever it answers."""
    route = CALLS["cancel"].route(server).mock(return_value=CALLS["cancel"].good)
    await api.cancel("batch_1")
    assert route.call_count == 1


@pytest.mark.parametrize("status_code", [400, 404, 409])
async def test_a_batch_that_has_ended_already_is_left_as_it_is(api, server, clock, status_code):
    """409, "Cannot cancel a batch with status 'completed'.", is an answer and not worth waiting for another."""
    message = "Cannot cancel a batch with status 'completed'."
    route = CALLS["cancel"].route(server).mock(return_value=refused(status_code, message))
    await api.cancel("batch_1")
    assert route.call_count == 1
    assert clock.slept == []


# What passes is waited out.


class Page(httpx.AsyncByteStream):
    """A body that breaks off after some bytes."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._error:
            raise self._error


HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
PASSING = {
    "408": refused(408),
    "409": refused(409),
    "425": refused(425),
    "429": refused(429, "Slow down.", code="rate_limit_exceeded"),
    "500": refused(500),
    "502 with an HTML page": httpx.Response(502, html=HTML),
    "503 without a body": httpx.Response(503),
    "504": refused(504),
    "529": refused(529),
    "connection refused": httpx.ConnectError("Connection refused"),
    "connection cut": httpx.RemoteProtocolError("Server disconnected without sending a response."),
    "connection reset": httpx.ReadError(""),
    "upload cut": httpx.WriteError("Broken pipe"),
    "time-out": httpx.ReadTimeout("timed out"),
    "time-out while connecting": httpx.ConnectTimeout(""),
    "no connection free": httpx.PoolTimeout(""),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
async def test_what_passes_is_waited_out(api, server, clock, call, input_file, fault):
    """Each call is made again after a pause, and then succeeds."""
    if call.path.endswith("cancel") and isinstance(fault, httpx.Response) and fault.status_code == 409:
        pytest.skip("a cancelled batch's 409 is an answer")
    route = call.route(server).mock(side_effect=[fault, call.good])
    await call.make(api, input_file)
    assert route.call_count == 2
    assert clock.slept[0] == 0.5
    assert len(clock.slept) == 1 or call is CALLS["create"], "only a creation is searched for"


MUTE = {
    "HTML": httpx.Response(200, html=HTML),
    "JSON cut off": httpx.Response(200, content=b'{"id": "bat', headers={"content-type": "application/json"}),
    "empty": httpx.Response(200, content=b"", headers={"content-type": "application/json"}),
    "null": httpx.Response(200, json=None),
    "{}": httpx.Response(200, json={}),
    "text": httpx.Response(200, json="ok"),
    "a list": httpx.Response(200, json=[]),
    "data null": httpx.Response(200, json={"object": "list", "data": None}),
}


@pytest.mark.parametrize("answer", MUTE.values(), ids=MUTE.keys())
@pytest.mark.parametrize("name", ["upload", "create", "retrieve", "list"])
async def test_an_answer_that_is_not_the_apis_is_waited_out(api, server, clock, input_file, name, answer):
    """A proxy's page with status 200 is no answer, and no exception of another kind than ours either."""
    call = CALLS[name]
    if name == "create":
        server.get("/batches").mock(return_value=listing())
    if name == "list":
        # Without a single batch on the page, each is looked at by itself: right as well.
        for batch_id in ("batch_1", "batch_2"):
            server.get(f"/batches/{batch_id}").mock(return_value=httpx.Response(200, json=batch(batch_id)))
    route = call.route(server).mock(side_effect=[answer, call.good])
    result = await call.make(api, input_file)
    if name == "list":
        assert result.keys() == {"batch_1", "batch_2"}
    else:
        assert route.call_count == 2


async def test_pauses_grow_to_the_longest(clock, server, input_file):
    """Each pause is twice as long as the one before, up to a minute."""
    async with connected(patience=Patience(first=0.5, longest=60.0)) as api:
        CALLS["retrieve"].route(server).mock(side_effect=[httpx.Response(503)] * 10 + [CALLS["retrieve"].good])
        await api.retrieve("batch_1")
    assert clock.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.5), (2, 1.0), (7, 32.0), (8, 60.0), (100, 60.0), (1_000_000, 60.0)]
)
def test_a_pause_never_overflows(attempt, seconds):
    """A night of retries ends in the same pause as its first hour."""
    assert Patience().pause(attempt) == seconds


@pytest.mark.parametrize("status_code", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7.0), ("0.75", 0.75), ("300", 300.0), ("0", 0.5), ("0.1", 0.5), ("soon", 0.5), ("", 0.5), ("-3", 0.5)],
)
async def test_retry_after_is_honoured(api, server, clock, call, input_file, status_code, retry_after, seconds):
    """The server may ask for a longer pause, even than our longest, and never for a shorter one."""
    busy = refused(status_code, headers={"retry-after": retry_after})
    call.route(server).mock(side_effect=[busy, call.good])
    await call.make(api, input_file)
    assert clock.slept[0] == seconds
    assert len(clock.slept) == 1 or call is CALLS["create"], "only a creation is searched for"


@pytest.mark.parametrize("retry_after", ["inf", "nan", "1e999"])
async def test_a_retry_after_that_is_no_time_is_not_waited_for(api, server, clock, retry_after):
    """It ends: nobody sleeps for ever."""
    busy = refused(503, headers={"retry-after": retry_after})
    CALLS["retrieve"].route(server).mock(side_effect=[busy, CALLS["retrieve"].good])
    await api.retrieve("batch_1")
    assert clock.slept == [0.5]


async def test_a_server_that_was_never_reached_is_given_up_soon(clock, server, call, input_file):
    """A wrong address is an error after a few repetitions, which names the address."""
    route = call.route(server).mock(side_effect=httpx.ConnectError("Name or service not known"))
    server.get("/batches").mock(side_effect=httpx.ConnectError("Name or service not known"))
    async with connected(patience=Patience(retries=3)) as api:
        with pytest.raises(errors.ConnectionFailedError, match="Name or service not known") as caught:
            await call.make(api, input_file)
    assert BASE_URL in str(caught.value)
    assert clock.slept == [0.5, 1.0, 2.0]
    assert route.call_count <= 4


@pytest.mark.parametrize("fault", [httpx.ConnectError("gone"), httpx.Response(503)], ids=["cut off", "503"])
async def test_a_server_that_was_reached_is_waited_for(clock, server, call, input_file, fault):
    """For hours, whatever its failure, and then no longer."""
    reached = server.get("/batches/reached").mock(return_value=httpx.Response(200, json=batch("reached")))
    async with connected(patience=Patience(total=7_200.0, retries=3)) as api:
        await api.retrieve("reached")
        assert reached.called
        call.route(server).mock(side_effect=[fault] * 10_000)
        with pytest.raises(errors.ConnectionFailedError) as caught:
            await call.make(api, input_file)
    assert 7_200.0 < clock.now <= 7_200.0 + 60.0
    assert "run again" in str(caught.value)


async def test_a_refusal_counts_as_reached(clock, server):
    """Whoever answers 503 is there: the address is right."""
    CALLS["retrieve"].route(server).mock(
        side_effect=[httpx.Response(503)] + [httpx.ConnectError("gone")] * 50 + [CALLS["retrieve"].good]
    )
    async with connected(patience=Patience(retries=3)) as api:
        assert (await api.retrieve("batch_1")).id == "batch_1"


async def test_a_long_wait_is_told_in_few_lines(api, server, caplog):
    """Each doubling of the attempts is news; each attempt is not."""
    CALLS["retrieve"].route(server).mock(side_effect=[httpx.Response(503)] * 200 + [CALLS["retrieve"].good])
    with caplog.at_level(logging.INFO, LOGGER.name):
        await api.retrieve("batch_1")
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    assert len(lines) == 8
    assert all("503" in line and "batch_1" in line for line in lines)


async def test_the_first_failure_says_where_and_how_long_it_is_tried(clock, server, caplog):
    """Before the first pause, and without the password that an address may have in it."""
    CALLS["retrieve"].route(server).mock(side_effect=httpx.ConnectError("All connection attempts failed"))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        async with connected(BASE_URL.replace("//", "//me:secret@"), Patience(retries=3)) as api:
            with pytest.raises(errors.ConnectionFailedError, match="Is the address right") as caught:
                await api.retrieve("batch_1")
    assert caplog.messages[0] == (
        f"Failed to poll batch batch_1 at {BASE_URL}: All connection attempts failed. Retrying in 0.5 s, for at most"
        " 4 s."
    )
    assert "secret" not in f"{caught.value}{caplog.text}"


# What does not pass is raised at once.


@pytest.mark.parametrize("name", ["upload", "create"])
@pytest.mark.parametrize("status_code", [404, 405, 501])
@pytest.mark.parametrize("base_url", ["https://api.example.com", f"{BASE_URL}/"])
async def test_a_wrong_base_url_is_named(clock, input_file, name, status_code, base_url):
    """With the address that was asked, what it answered, and what such an address usually ends in, if it does not."""
    call, host = CALLS[name], base_url.rstrip("/")
    with respx.mock(base_url=host) as server:
        call.route(server).mock(return_value=httpx.Response(status_code, json={"detail": "Not Found"}))
        async with connected(base_url) as api:
            with pytest.raises(errors.RunError) as caught:
                await call.make(api, input_file)
    said = str(caught.value)
    assert said.startswith(f"POST {host}{call.path} was answered: ")
    assert f"(HTTP {status_code})" in said
    assert ("ends in /v1" in said) == (host != BASE_URL)


UNKNOWN = httpx.ReadTimeout("timed out")
UNREACHED = httpx.ConnectError("gone")


@pytest.mark.parametrize(
    ("answers", "did_nothing"),
    [
        ([refused(400)], True),
        ([refused(401)], True),
        ([refused(429), refused(403)], True),
        ([UNREACHED, refused(404)], True),
        ([UNKNOWN, refused(404)], False),
        ([refused(503), refused(404)], False),
        ([UNREACHED] * 4, True),
        ([UNREACHED, UNKNOWN, refused(404)], False),
        ([UNREACHED] * 3 + [UNKNOWN], False),
    ],
)
@pytest.mark.parametrize("name", ["upload", "create"])
async def test_whether_the_server_did_nothing_is_known(clock, server, input_file, name, answers, did_nothing):
    """A single attempt of which nobody knows what came of it leaves it open."""
    CALLS[name].route(server).mock(side_effect=answers)
    CALLS["list"].route(server).mock(return_value=listing())
    async with connected(patience=Patience(retries=3)) as api:
        with pytest.raises(errors.RunError) as caught:
            await CALLS[name].make(api, input_file)
    assert caught.value.did_nothing is did_nothing


async def test_a_lost_creation_is_not_undone_by_a_refused_search(clock, server, input_file):
    """The key was withdrawn before it was known whether there is a batch: there may be one."""
    CALLS["create"].route(server).mock(side_effect=UNKNOWN)
    CALLS["list"].route(server).mock(return_value=refused(401))
    async with connected() as api:
        with pytest.raises(errors.AuthenticationError) as caught:
            await api.create("file-1", CHAT, "24h", "the-key", {})
    assert not caught.value.did_nothing


REFUSED = {
    "400": (refused(400, "Bad purpose.", code="invalid_purpose"), errors.RunError, 400, "invalid_purpose"),
    "400 with a type only": (refused(400), errors.RunError, 400, "error_type"),
    "401": (
        refused(401, "Incorrect API key.", code="invalid_api_key"),
        errors.AuthenticationError,
        401,
        "invalid_api_key",
    ),
    "403": (refused(403, "Not yours.", code="forbidden"), errors.AuthenticationError, 403, "forbidden"),
    "413 with an HTML page": (httpx.Response(413, html="<p>Too large</p>"), errors.RunError, 413, None),
    "422 of another shape": (httpx.Response(422, json={"detail": "Not so."}), errors.RunError, 422, None),
    "no money": (
        refused(429, "You exceeded your current quota.", type="insufficient_quota", code="insufficient_quota"),
        errors.QuotaError,
        429,
        "insufficient_quota",
    ),
    "no money, by its type": (refused(429, type="insufficient_quota"), errors.QuotaError, 429, "insufficient_quota"),
    "too many tokens wait": (
        refused(400, "Enqueued token limit reached.", code="token_limit_exceeded"),
        errors.RunError,
        400,
        "token_limit_exceeded",
    ),
    "too many tokens wait, by 429": (
        refused(429, "Enqueued token limit reached.", code="token_limit_exceeded"),
        errors.RunError,
        429,
        "token_limit_exceeded",
    ),
    "hard limit": (
        refused(400, "Billing hard limit has been reached.", code="billing_hard_limit_reached"),
        errors.QuotaError,
        400,
        "billing_hard_limit_reached",
    ),
}


@pytest.mark.parametrize(("answer", "kind", "status_code", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_does_not_pass_is_raised_at_once(
    api, server, clock, call, input_file, answer, kind, status_code, code
):
    """One call, no pause, and an error with the API's own words, status code and code."""
    if call.path.endswith("cancel") and kind is errors.RunError and status_code == 400:
        pytest.skip("a batch that cannot be cancelled is left as it is")
    route = call.route(server).mock(return_value=answer)
    with pytest.raises(errors.RunError) as caught:
        await call.make(api, input_file)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status_code, code)
    assert str(status_code) in str(caught.value)
    told = (
        answer.json().get("error", {}).get("message", "Not so.")
        if "json" in answer.headers["content-type"]
        else "Too large"
    )
    assert told in str(caught.value)
    assert route.call_count == 1
    assert clock.slept == []


async def test_a_batch_that_the_server_does_not_know_is_a_clear_error(api, server, clock):
    """Another key or another project: the error asks about it, and names the batch."""
    CALLS["retrieve"].route(server).mock(return_value=refused(404, "No batch found with id 'batch_1'."))
    with pytest.raises(errors.RunError, match="project") as caught:
        await api.retrieve("batch_1")
    assert (caught.value.status_code, caught.value.batch_id) == (404, "batch_1")
    assert "No batch found with id 'batch_1'." in str(caught.value)
    assert clock.slept == []


def spoken(error: BaseException, caplog) -> str:
    """All that a user, a log or a bug report would see of an error."""
    return "".join([*traceback.format_exception(type(error), error, error.__traceback__), repr(error), caplog.text])


ECHOES = {
    "in the message": lambda code: refused(code, f"Incorrect API key provided: {API_KEY}."),
    "in an HTML page": lambda code: httpx.Response(code, html=f"<p>Authorization: Bearer {API_KEY}</p>"),
    "in other JSON": lambda code: httpx.Response(code, json={"detail": {"sent": API_KEY}}),
    "where a long page is cut": lambda code: httpx.Response(code, text="x" * 180 + f" {API_KEY} " + "x" * 180),
}


@pytest.mark.parametrize("status_code", [401, 403, 413, 429, 500])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
async def test_the_key_is_never_told(clock, server, call, input_file, caplog, echo, status_code):
    """Not in an exception's text, not in its traceback, not in the log, even when the server echoes it."""
    call.route(server).mock(side_effect=lambda request: echo(status_code))
    async with connected(patience=Patience(total=5.0)) as api:
        with caplog.at_level(logging.DEBUG, LOGGER.name), pytest.raises(errors.RunError) as caught:
            await call.make(api, input_file)
    text = spoken(caught.value, caplog)
    assert API_KEY not in text
    assert API_KEY[:12] not in text


async def test_the_key_is_not_told_by_a_connection_error_either(clock, server, input_file, caplog):
    """A proxy's address, for one, may come back in the error's text."""
    CALLS["retrieve"].route(server).mock(side_effect=httpx.ConnectError(f"no route for {API_KEY}"))
    async with connected(patience=Patience(retries=2)) as api:
        with caplog.at_level(logging.DEBUG, LOGGER.name), pytest.raises(errors.ConnectionFailedError) as caught:
            await api.retrieve("batch_1")
    assert API_KEY not in spoken(caught.value, caplog)


# Creating, once.

LOST = {
    "time-out": httpx.ReadTimeout("timed out"),
    "connection cut": httpx.RemoteProtocolError("cut"),
    "409": refused(409),
    "408": refused(408),
    "500": refused(500),
    "502 with an HTML page": httpx.Response(502, html=HTML),
    "an answer that is no batch": httpx.Response(200, json={"object": "batch"}),
}


def made(server) -> list[str]:
    """The calls in their order."""
    return [f"{call.request.method} {call.request.url.path.removeprefix('/v1')}" for call in server.calls]


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST.keys())
async def test_a_batch_whose_reply_was_lost_is_found_by_its_key(api, server, caplog, fault):
    """It is created once, and bought once."""
    create = CALLS["create"].route(server).mock(side_effect=[fault])
    others = [batch(f"other_{n}", metadata={KEY_METADATA: f"other-{n}"}) for n in range(3)]
    CALLS["list"].route(server).mock(return_value=listing(*others, batch("found", metadata={KEY_METADATA: "the-key"})))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
    assert create.call_count == 1
    assert "found" in caplog.text


async def test_a_lost_batch_is_looked_for_on_every_page(api, server):
    """Newest first, page after page, from the last batch of the one before."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out")])
    pages = [[batch(f"other_{page}_{n}", input_file_id="file-other") for n in range(100)] for page in range(2)]
    pages.append([batch("found", metadata={KEY_METADATA: "the-key"})])
    route = CALLS["list"].route(server).mock(side_effect=[listing(*page, has_more=True) for page in pages])
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
    assert create.call_count == 1
    cursors = [call.request.url.params.get("after") for call in route.calls]
    assert cursors == [None, "other_0_99", "other_1_99"]
    assert {call.request.url.params["limit"] for call in route.calls} == {"100"}


async def test_a_lost_batch_is_not_looked_for_in_the_distant_past(api, server):
    """A batch that is older than the attempt by more than clocks disagree cannot be it."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    old = [batch(f"old_{n}", input_file_id="file-old", created_at=int(NOW) - 7_200) for n in range(100)]
    route = CALLS["list"].route(server).mock(return_value=listing(*old, has_more=True))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"
    assert create.call_count == 2
    assert not any(call.request.url.params.get("after") for call in route.calls)


async def test_a_lost_batch_is_found_where_the_oldest_are_listed_first(api, server):
    """The end of such a list has the newest."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    old = [batch(f"old_{n}", created_at=int(NOW) - 9_000 + n, metadata={KEY_METADATA: "other"}) for n in range(3)]
    pages = [listing(*old, has_more=True), listing(batch("found", metadata={KEY_METADATA: "the-key"}))]
    CALLS["list"].route(server).mock(side_effect=pages)
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


async def test_a_batch_is_created_again_only_when_there_is_none(api, server, clock):
    """After each lost reply it is looked for, with growing pauses, for as long as it may still come to be."""
    lost = httpx.ReadTimeout("timed out")
    created_at = []

    def create(request):
        created_at.append(clock.now)
        if len(created_at) < 3:
            raise lost
        return CALLS["create"].good

    CALLS["create"].route(server).mock(side_effect=create)
    CALLS["list"].route(server).mock(side_effect=lambda request: listing())
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert all(later - earlier >= CREATION_SECONDS for earlier, later in pairwise(created_at))
    assert created_at[-1] <= 2 * (2 * CREATION_SECONDS + 60)
    assert clock.slept[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert made(server)[:9] == ["POST /batches", *["GET /batches"] * 7, "POST /batches"]


async def test_a_batch_that_a_gateway_creates_late_is_found(api, server, clock):
    """It said that it had given up, and had not."""
    create = CALLS["create"].route(server).mock(side_effect=[refused(504)])
    late = batch("late", metadata={KEY_METADATA: "the-key"})
    CALLS["list"].route(server).mock(side_effect=lambda request: listing(*[late] * (clock.now > 20)))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "late"
    assert create.call_count == 1


@pytest.mark.parametrize("lost", [[refused(504)], [refused(504), refused(504)]], ids=["once", "twice"])
async def test_of_two_batches_with_a_key_the_newer_one_is_cancelled(api, server, clock, caplog, lost):
    """The first one came to be so late that it was created again."""
    first = batch("first", metadata={KEY_METADATA: "the-key"}, created_at=int(NOW) + 50)
    second = batch("second", metadata={KEY_METADATA: "the-key"}, created_at=int(NOW) + 90)
    refused_one = batch("refused", "failed", metadata={KEY_METADATA: "the-key"})
    create = CALLS["create"].route(server).mock(side_effect=[*lost, httpx.Response(200, json=second)])
    CALLS["list"].route(server).mock(
        side_effect=lambda request: listing(*[second, first, refused_one] * (create.call_count == 2))
    )
    cancel = server.post("/batches/second/cancel").mock(return_value=httpx.Response(200, json=second))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "first"
    assert (create.call_count, cancel.call_count) == (2, 1)
    assert "batch second, which has the same requests, is cancelled" in caplog.text


async def test_a_batch_is_kept_where_it_cannot_be_seen_whether_there_are_two(api, server, caplog):
    """What was created is not lost by a search that is refused."""
    create = CALLS["create"].route(server).mock(side_effect=[refused(504), CALLS["create"].good])
    CALLS["list"].route(server).mock(
        side_effect=lambda request: listing() if create.call_count == 1 else refused(403, "Not you.")
    )
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"
    assert "batch_1 may have been created twice: Not you." in caplog.text


async def test_of_two_batches_with_a_key_the_one_that_goes_on_is_found(api, server):
    """A run that died may have cancelled one of them."""
    statuses = {"second": "cancelled", "first": "in_progress"}
    batches = [batch(batch_id, status, metadata={KEY_METADATA: "the-key"}) for batch_id, status in statuses.items()]
    CALLS["list"].route(server).mock(return_value=listing(*batches))
    found = await api.find("the-key", "file-1", since=NOW)
    assert found is not None
    assert found.id == "first"


async def test_nothing_is_created_before_the_search_has_succeeded(api, server, clock):
    """A list that fails says nothing about the batch."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    failing = [httpx.Response(503), httpx.ReadTimeout("timed out"), refused(429)] * 4
    CALLS["list"].route(server).mock(side_effect=[*failing, listing(), listing()])
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert create.call_count == 2
    assert made(server) == ["POST /batches", *["GET /batches"] * 13, "POST /batches", "GET /batches"]


async def test_a_server_that_ignores_the_cursor_is_not_asked_for_ever(clock, server):
    """It ends: the same page over and over is no reason to go on turning pages."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    same = [batch(f"other_{n}", input_file_id="file-other") for n in range(3)]
    CALLS["list"].route(server).mock(side_effect=[listing(*same)] * 40)
    async with connected() as api:
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"


async def test_where_metadata_is_dropped_a_lost_batch_is_found_by_its_file(api, server, caplog):
    """And it is said, once, what cannot be promised there."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    CALLS["list"].route(server).mock(return_value=listing(batch("other", input_file_id="file-2"), batch("found")))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
        await api.create("file-1", CHAT, "24h", "another-key", {})
    assert caplog.text.count("drops a batch's metadata") == 1


async def test_a_lost_batch_is_not_taken_for_one_that_was_refused(api, server):
    """Which may have had the same file; one that has ended otherwise can only be the lost one."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    CALLS["list"].route(server).mock(return_value=listing(batch("refused", "failed"), batch("found", "completed")))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


def file(status: str, **fields: object) -> httpx.Response:
    """A file as Azure shows it."""
    return httpx.Response(200, json={"id": "file-1", "object": "file", "status": status, **fields})


async def test_an_upload_that_is_pending_is_waited_for(api, server, clock, input_file):
    """With growing pauses, until the server has another word for it."""
    CALLS["upload"].route(server).mock(return_value=file("pending"))
    server.get("/files/file-1").mock(side_effect=[file("pending"), httpx.Response(503), file("running"), file("ready")])
    assert await api.files.upload(input_file) == "file-1"
    assert clock.slept == [0.5, 1.0, 0.5, 2.0]


@pytest.mark.parametrize("status", ["error", "deleted"])
async def test_an_upload_that_the_server_cannot_use_is_an_error(api, server, input_file, status):
    """In the server's words."""
    CALLS["upload"].route(server).mock(return_value=file("pending"))
    server.get("/files/file-1").mock(return_value=file(status, status_details="There is a byte-order mark."))
    with pytest.raises(errors.RunError, match=f"file-1, its status is {status}: There is a byte-order mark."):
        await api.files.upload(input_file)


async def test_an_upload_is_not_waited_for_for_ever(api, server, clock, input_file):
    """Half an hour, as the SDK waits."""
    CALLS["upload"].route(server).mock(return_value=file("pending"))
    server.get("/files/file-1").mock(return_value=file("pending"))
    with pytest.raises(errors.RunError, match="file-1 is still pending 1,800 s after its upload"):
        await api.files.upload(input_file)
    assert 1_800 <= clock.now <= 1_900


async def test_a_file_whose_upload_was_not_told_is_removed(api, server, input_file):
    """Only files of its name, which no other upload has."""
    CALLS["upload"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["upload"].good])
    names = {"file-0": input_file.name, "file-1": input_file.name, "file-2": "another.jsonl"}
    files = [{"id": file_id, "object": "file", "filename": name} for file_id, name in names.items()]
    server.get("/files").mock(return_value=httpx.Response(200, json={"object": "list", "data": files}))
    server.delete("/files/file-0").mock(return_value=httpx.Response(200, json={"id": "file-0", "deleted": True}))
    assert await api.files.upload(input_file) == "file-1"
    assert made(server)[-1] == "DELETE /files/file-0"


async def test_a_creation_refused_with_429_is_just_repeated(api, server, clock):
    """The server said that it did nothing: there is nothing to look for."""
    CALLS["create"].route(server).mock(side_effect=[refused(429), refused(429), CALLS["create"].good])
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert made(server) == ["POST /batches"] * 3
    assert clock.slept == [0.5, 1.0]


async def test_once_a_reply_was_lost_even_a_429_is_followed_by_a_search(api, server):
    """The batch of the first attempt may still turn up."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), refused(429)])
    found = batch("found", metadata={KEY_METADATA: "the-key"})
    CALLS["list"].route(server).mock(side_effect=lambda request: listing(*[found] * (create.call_count == 2)))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


@pytest.mark.parametrize("status_code", [404, 405, 501])
async def test_without_a_list_a_lost_creation_is_repeated_and_said(api, server, caplog, status_code):
    """Nothing better can be done than to buy it again, and to say so."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].good])
    CALLS["list"].route(server).mock(return_value=refused(status_code))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"
    assert made(server) == ["POST /batches", "GET /batches", "POST /batches"]
    assert "does not list" in caplog.text


@pytest.mark.parametrize(
    "fault", [refused(500), refused(409), httpx.ReadTimeout("timed out")], ids=["500", "409", "lost"]
)
async def test_the_sdk_repeats_nothing_by_itself(clock, server, call, input_file, fault):
    """Its retries are off, whatever the client was made with: they would buy a batch again."""
    route = call.route(server).mock(side_effect=[fault] * 50)
    async with connected(patience=Patience(retries=0, total=-1.0)) as api:
        if call.path.endswith("cancel") and isinstance(fault, httpx.Response) and fault.status_code == 409:
            await call.make(api, input_file)
        else:
            with pytest.raises(errors.ConnectionFailedError):
                await call.make(api, input_file)
    assert route.call_count == 1


# A file that is not visible yet.

UNSEEN = "Cannot find file file-1, or organization org-1 does not have access to it."


async def test_a_file_that_is_not_visible_yet_is_waited_for(api, server, clock):
    """Right after its upload the server may not find it: nothing was created, nothing is looked for."""
    unseen = refused(400, UNSEEN, code="invalid_request")
    CALLS["create"].route(server).mock(side_effect=[unseen, unseen, CALLS["create"].good])
    assert (await api.create("file-1", CHAT, "24h", "key", {})).id == "batch_1"
    assert made(server) == ["POST /batches"] * 3


async def test_a_file_that_stays_invisible_is_gone(api, server, clock):
    """For a short while, and not for hours; the error is the API's own."""
    CALLS["create"].route(server).mock(return_value=refused(400, UNSEEN, code="invalid_request"))
    with pytest.raises(errors.RunError, match="Cannot find file file-1") as caught:
        await api.create("file-1", CHAT, "24h", "key", {})
    assert caught.value.status_code == 400
    assert FILE_VISIBLE_SECONDS <= clock.now <= 2 * FILE_VISIBLE_SECONDS + 60


# Downloading.

CONTENT = bytes(range(256)) * 40


async def test_a_download_is_the_file(api, server, tmp_path):
    """Byte by byte, and nothing that was there before."""
    path = tmp_path / "output.jsonl"
    path.write_bytes(b"left over")
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=CONTENT))
    await api.files.download("file-2", path)
    assert path.read_bytes() == CONTENT
    assert "range" not in server.calls.last.request.headers


async def test_a_new_file_that_is_not_visible_yet_is_waited_for(api, server, clock, tmp_path):
    """For a short while, with growing pauses; then it is gone."""
    route = CALLS["download"].route(server)
    route.mock(side_effect=[refused(404), refused(404), httpx.Response(200, content=CONTENT)])
    await api.files.download("file-2", tmp_path / "output", is_new=True)
    assert (tmp_path / "output").read_bytes() == CONTENT
    assert clock.slept == [0.5, 1.0]

    route.mock(side_effect=None, return_value=refused(404))
    with pytest.raises(errors.RunError) as caught:
        await api.files.download("file-2", tmp_path / "output", is_new=True)
    assert caught.value.status_code == 404
    assert RESULTS_VISIBLE_SECONDS <= clock.now <= 2 * RESULTS_VISIBLE_SECONDS + 60


async def test_an_old_file_that_is_not_found_is_gone(api, server, clock, tmp_path):
    """At once."""
    CALLS["download"].route(server).mock(return_value=refused(404))
    with pytest.raises(errors.RunError):
        await api.files.download("file-2", tmp_path / "output")
    assert not clock.slept


async def test_an_empty_file_is_downloaded(api, server, tmp_path):
    """Some servers have a file of no bytes where others have none."""
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=b""))
    await api.files.download("file-2", tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == b""


def broken(content: bytes, status_code: int = 200) -> httpx.Response:
    """A download that breaks off after `content`."""
    cut = httpx.RemoteProtocolError("peer closed connection without sending complete message body")
    return httpx.Response(status_code, stream=Page(content, error=cut))


async def test_a_download_that_breaks_off_is_carried_on(api, server, tmp_path):
    """Each attempt asks for what is missing, and appends it once."""
    route = CALLS["download"].route(server)
    route.mock(
        side_effect=[
            broken(CONTENT[:1_000]),
            httpx.Response(503),
            broken(CONTENT[1_000:1_500], 206),
            httpx.ReadTimeout("timed out"),
            httpx.Response(206, content=CONTENT[1_500:]),
        ]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT
    ranges = [call.request.headers.get("range") for call in route.calls]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-", "bytes=1500-"]
    assert {call.request.headers["accept-encoding"] for call in route.calls} == {"identity"}


async def test_a_download_from_a_server_without_ranges_begins_again(api, server, tmp_path):
    """Its 200 is the whole file: nothing is appended twice."""
    CALLS["download"].route(server).mock(
        side_effect=[broken(CONTENT[:1_000]), broken(CONTENT[:300]), httpx.Response(200, content=CONTENT)]
    )
    await api.files.download("file-2", tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT


async def test_a_download_that_broke_off_at_its_very_end_is_not_lost(api, server, tmp_path):
    """All bytes are there, the server answers 416 to the question for more: paid answers are not thrown away."""
    route = CALLS["download"].route(server)

    def answer(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(416, headers={"content-range": f"bytes */{len(CONTENT)}"})
        return broken(CONTENT) if route.call_count == 0 else httpx.Response(200, content=CONTENT)

    route.mock(side_effect=answer)
    await api.files.download("file-2", tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT


async def test_a_file_that_is_shorter_than_announced_is_not_taken_for_whole(clock, tmp_path):
    """Through a real socket, as only that knows about announced lengths."""
    asked: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        wanted = next((text.split("=")[1] for text in head.split("\r\n") if text.startswith("range:")), None)
        asked.append(wanted)
        start = int(wanted.rstrip("-")) if wanted else 0
        status = "206 Partial Content" if wanted else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(CONTENT) - start}\r\n\r\n".encode())
        writer.write(CONTENT[start : start + 4_000])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(f"http://127.0.0.1:{port}/v1") as api:
            await api.files.download("file-2", tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == CONTENT
    assert asked == [None, "4000-", "8000-"]


async def test_a_disk_that_is_full_is_not_the_servers_fault(api, server, clock, tmp_path):
    """An error of the disk is raised as it is, and not waited for."""
    CALLS["download"].route(server).mock(return_value=httpx.Response(200, content=CONTENT))
    with pytest.raises(OSError, match="No such file"):
        await api.files.download("file-2", tmp_path / "missing" / "output.jsonl")
    assert clock.slept == []


async def test_no_more_are_created_in_an_hour_than_the_server_allows(monkeypatch):
    """The next one waits until the first is an hour old, by a clock that is handed in."""
    now = 1_000.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(creation, "_CREATIONS_PER_HOUR", 3)
    monkeypatch.setattr(creation.anyio, "sleep", sleep)
    monkeypatch.setattr(creation.time, "monotonic", lambda: now)
    limit = CreationLimit()
    created_at = []
    for _ in range(7):
        await limit.wait()
        created_at.append(now)
    assert created_at == [1_000.0] * 3 + [4_600.0] * 3 + [8_200.0]
