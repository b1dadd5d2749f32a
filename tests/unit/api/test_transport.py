"""Retries of transient failures, the mapping of the SDK's errors, and the masking of the key."""

from __future__ import annotations

import logging
import traceback

import httpx
import openai
import pytest
import respx

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.transport import Patience, error_code, sdk_client
from tests.support.batch_api import (
    API_KEY,
    BASE_URL,
    CALLS,
    CHAT,
    HTML,
    LOGGER,
    batch,
    connect,
    listing,
    refusal,
    reply,
)

# Retries.

TRANSIENT_FAILURES = {
    "408": refusal(408),
    "409": refusal(409),
    "425": refusal(425),
    "429": refusal(429, "Slow down.", code="rate_limit_exceeded"),
    "500": refusal(500),
    "502 with an HTML page": httpx.Response(502, html=HTML),
    "503 without a body": httpx.Response(503),
    "504": refusal(504),
    "529": refusal(529),
    "connection refused": httpx.ConnectError("Connection refused"),
    "connection cut": httpx.RemoteProtocolError("Server disconnected without sending a response."),
    "connection reset": httpx.ReadError(""),
    "upload cut": httpx.WriteError("Broken pipe"),
    "time-out": httpx.ReadTimeout("timed out"),
    "time-out while connecting": httpx.ConnectTimeout(""),
    "no connection free": httpx.PoolTimeout(""),
}


@pytest.mark.parametrize("failure", TRANSIENT_FAILURES.values(), ids=TRANSIENT_FAILURES.keys())
async def test_each_call_is_retried_after_a_transient_failure(api, server, clock, call, input_file, failure):
    if call.path.endswith("cancel") and isinstance(failure, httpx.Response) and failure.status_code == 409:
        pytest.skip("a 409 means that the batch has ended already")
    route = call.route(server).mock(side_effect=[failure, call.success])
    await call.make(api, input_file)
    assert route.call_count == 2
    assert clock.pauses[0] == 0.5
    assert len(clock.pauses) == 1 or call is CALLS["create"], "only a lost creation pauses again, to search"


FOREIGN_REPLIES = {
    "HTML": httpx.Response(200, html=HTML),
    "JSON cut off": httpx.Response(200, content=b'{"id": "bat', headers={"content-type": "application/json"}),
    "empty": httpx.Response(200, content=b"", headers={"content-type": "application/json"}),
    "null": httpx.Response(200, json=None),
    "{}": reply({}),
    "text": reply("ok"),
    "a list": reply([]),
    "data null": reply({"object": "list", "data": None}),
}


@pytest.mark.parametrize("foreign", FOREIGN_REPLIES.values(), ids=FOREIGN_REPLIES.keys())
@pytest.mark.parametrize("name", ["upload", "create", "retrieve", "list"])
async def test_a_reply_that_is_not_of_this_api_is_retried(api, server, clock, input_file, name, foreign):
    """A proxy's page with status 200 is a transient failure."""
    call = CALLS[name]
    if name == "create":
        server.get("/batches").mock(return_value=listing())
    if name == "list":
        # A page without any batch is valid → each batch is polled by itself.
        for batch_id in ("batch_1", "batch_2"):
            server.get(f"/batches/{batch_id}").mock(return_value=reply(batch(batch_id)))
    route = call.route(server).mock(side_effect=[foreign, call.success])
    result = await call.make(api, input_file)
    if name == "list":
        assert result.keys() == {"batch_1", "batch_2"}
    else:
        assert route.call_count == 2


PERSISTENT_REPLIES = {
    **FOREIGN_REPLIES,
    "an error": reply({"error": {"message": "The model is overloaded.", "code": "overloaded"}}),
    "an envelope with an error": reply({"code": 50000, "message": "The model is overloaded.", "data": {}}),
}


@pytest.mark.parametrize("foreign", PERSISTENT_REPLIES.values(), ids=PERSISTENT_REPLIES.keys())
@pytest.mark.parametrize("name", ["upload", "create", "retrieve"])
async def test_a_reply_that_stays_foreign_is_an_error_within_a_minute(clock, server, input_file, name, foreign):
    """The error quotes the reply; a reached server is not retried for hours."""
    server.get("/batches/reached").mock(return_value=reply(batch("reached")))
    server.get("/batches").mock(return_value=listing())
    route = CALLS[name].route(server).mock(return_value=foreign)
    async with connect() as api:
        await api.retrieve("reached")
        with pytest.raises(errors.ConnectionFailedError) as caught:
            await CALLS[name].make(api, input_file)
    assert clock.now < 60.0
    assert 1 < route.call_count <= 7
    assert (" ".join(foreign.text.split()) or "the reply is empty") in str(caught.value)
    assert not caught.value.did_nothing


async def test_a_long_foreign_reply_is_shortened_and_its_key_masked(clock, server, caplog):
    page = f"<p>{'x' * 945} {API_KEY} {'y' * 5_000}</p>"
    CALLS["retrieve"].route(server).mock(return_value=httpx.Response(200, html=page))
    async with connect() as api:
        with caplog.at_level(logging.DEBUG, LOGGER.name), pytest.raises(errors.ConnectionFailedError) as caught:
            await api.retrieve("batch_1")
    assert API_KEY[:6] not in visible_text(caught.value, caplog)
    assert 1_000 < len(str(caught.value)) < 1_300
    assert "for at most 45 s" in caplog.text


async def test_foreign_replies_between_other_failures_are_retried(api, server, clock):
    """Only successive foreign replies show that the server has another API."""
    outage = [FOREIGN_REPLIES["HTML"], httpx.Response(503)] * 10
    CALLS["retrieve"].route(server).mock(side_effect=[*outage, CALLS["retrieve"].success])
    assert (await api.retrieve("batch_1")).id == "batch_1"


async def test_an_enveloped_object_is_read(api, server, call, input_file):
    """SiliconFlow wraps each reply."""
    if "content" in call.path:
        pytest.skip("a file's content has no envelope")
    envelope = reply({"code": 20000, "message": "Ok", "status": True, "data": call.success.json()})
    call.route(server).mock(side_effect=[envelope])
    await call.make(api, input_file)


async def test_pauses_double_up_to_the_longest(clock, server):
    async with connect(patience=Patience(first=0.5, longest=60.0)) as api:
        CALLS["retrieve"].route(server).mock(side_effect=[httpx.Response(503)] * 10 + [CALLS["retrieve"].success])
        await api.retrieve("batch_1")
    assert clock.pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.5), (2, 1.0), (7, 32.0), (8, 60.0), (100, 60.0), (1_000_000, 60.0)]
)
def test_a_pause_never_overflows(attempt, seconds):
    assert Patience().pause(attempt) == seconds


@pytest.mark.parametrize("status_code", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7.0), ("0.75", 0.75), ("300", 300.0), ("0", 0.5), ("0.1", 0.5), ("soon", 0.5), ("", 0.5), ("-3", 0.5)],
)
async def test_retry_after_lengthens_a_pause(api, server, clock, call, input_file, status_code, retry_after, seconds):
    """`Retry-After` may exceed our longest pause, and never shortens a pause."""
    busy = refusal(status_code, headers={"retry-after": retry_after})
    call.route(server).mock(side_effect=[busy, call.success])
    await call.make(api, input_file)
    assert clock.pauses[0] == seconds
    assert len(clock.pauses) == 1 or call is CALLS["create"], "only a lost creation pauses again, to search"


@pytest.mark.parametrize("retry_after", ["inf", "nan", "1e999"])
async def test_a_retry_after_that_is_not_finite_is_ignored(api, server, clock, retry_after):
    busy = refusal(503, headers={"retry-after": retry_after})
    CALLS["retrieve"].route(server).mock(side_effect=[busy, CALLS["retrieve"].success])
    await api.retrieve("batch_1")
    assert clock.pauses == [0.5]


async def test_a_server_that_was_never_reached_is_given_up_soon(clock, server, call, input_file):
    """A wrong address is an error after a few retries, and the error names the address."""
    route = call.route(server).mock(side_effect=httpx.ConnectError("Name or service not known"))
    server.get("/batches").mock(side_effect=httpx.ConnectError("Name or service not known"))
    async with connect(patience=Patience(retries=3)) as api:
        with pytest.raises(errors.ConnectionFailedError, match="Name or service not known") as caught:
            await call.make(api, input_file)
    assert BASE_URL in str(caught.value)
    assert clock.pauses == [0.5, 1.0, 2.0]
    assert route.call_count <= 4


@pytest.mark.parametrize("failure", [httpx.ConnectError("gone"), httpx.Response(503)], ids=["cut off", "503"])
async def test_a_server_that_was_reached_is_retried_for_the_total_time(clock, server, call, input_file, failure):
    reached = server.get("/batches/reached").mock(return_value=reply(batch("reached")))
    async with connect(patience=Patience(total=7_200.0, retries=3)) as api:
        await api.retrieve("reached")
        assert reached.called
        call.route(server).mock(side_effect=[failure] * 10_000)
        with pytest.raises(errors.ConnectionFailedError) as caught:
            await call.make(api, input_file)
    assert 7_200.0 < clock.now <= 7_200.0 + 60.0
    assert "run again" in str(caught.value)


async def test_a_503_counts_as_reached(clock, server):
    """A server that answers 503 exists, so that later failures are retried for hours."""
    CALLS["retrieve"].route(server).mock(
        side_effect=[httpx.Response(503)] + [httpx.ConnectError("gone")] * 50 + [CALLS["retrieve"].success]
    )
    async with connect(patience=Patience(retries=3)) as api:
        assert (await api.retrieve("batch_1")).id == "batch_1"


@pytest.mark.parametrize(
    "failure", [refusal(500), refusal(409), httpx.ReadTimeout("timed out")], ids=["500", "409", "lost"]
)
async def test_the_sdk_never_retries(clock, server, call, input_file, failure):
    """The SDK's retries are off even if the client was created with some: they would submit a batch twice."""
    route = call.route(server).mock(side_effect=[failure] * 50)
    async with connect(patience=Patience(retries=0, total=-1.0)) as api:
        if call.path.endswith("cancel") and isinstance(failure, httpx.Response) and failure.status_code == 409:
            await call.make(api, input_file)
        else:
            with pytest.raises(errors.ConnectionFailedError):
                await call.make(api, input_file)
    assert route.call_count == 1


# Log lines.


async def test_a_long_outage_is_logged_in_few_lines(api, server, caplog):
    """Attempts 1, 2, 4, 8, … are logged."""
    CALLS["retrieve"].route(server).mock(side_effect=[httpx.Response(503)] * 200 + [CALLS["retrieve"].success])
    with caplog.at_level(logging.INFO, LOGGER.name):
        await api.retrieve("batch_1")
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER.name]
    assert len(lines) == 8
    assert all("batch_1" in line and "(HTTP 503). Retrying in" in line for line in lines)


async def test_the_first_failure_is_logged_with_address_and_time_limit(clock, server, caplog):
    """The log line comes before the first pause, and hides the password of the address."""
    CALLS["retrieve"].route(server).mock(side_effect=httpx.ConnectError("All connection attempts failed"))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        async with connect(BASE_URL.replace("//", "//me:secret@"), Patience(retries=3)) as api:
            with pytest.raises(errors.ConnectionFailedError, match="Is the address right") as caught:
                await api.retrieve("batch_1")
    assert caplog.messages[0] == (
        f"Failed to poll batch batch_1 at {BASE_URL}: All connection attempts failed. Retrying in 0.5 s, for at most"
        " 4 s."
    )
    assert "secret" not in f"{caught.value}{caplog.text}"


# Refusals.


@pytest.mark.parametrize("name", ["upload", "create"])
@pytest.mark.parametrize("status_code", [404, 405, 501])
@pytest.mark.parametrize("base_url", ["https://api.example.com", f"{BASE_URL}/", f"{BASE_URL}/openai"])
async def test_an_error_for_an_unknown_path_names_the_address(clock, input_file, name, status_code, base_url):
    """The error quotes the reply, and hints at /v1 if the base URL does not end in it."""
    call, host = CALLS[name], base_url.rstrip("/")
    with respx.mock(base_url=host) as server:
        call.route(server).mock(return_value=httpx.Response(status_code, json={"detail": "Not Found"}))
        async with connect(base_url) as api:
            with pytest.raises(errors.RunError) as caught:
                await call.make(api, input_file)
    text = str(caught.value)
    assert text.startswith(f"POST {host}{call.path} was answered: ")
    assert f"(HTTP {status_code})" in text
    assert ("ends in /v1" in text) == (not host.startswith(BASE_URL))


async def test_an_unknown_path_of_azure_may_be_an_unknown_version(clock, input_file):
    """Azure answers 404 to a version that it does not know."""
    address = "https://example.com/openai"
    not_found = {"error": {"code": "404", "message": "Resource not found"}}
    with respx.mock(base_url=address) as server:
        server.post("/files").mock(return_value=httpx.Response(404, json=not_found))
        async with sdk_client(address, API_KEY, timeout=1.0, azure_api_version="2023-01-01") as client:
            api = BatchAPI(client, Patience(retries=0), LOGGER)
            with pytest.raises(errors.RunError, match=r"Resource not found .*if the `api_version` is unknown"):
                await CALLS["upload"].make(api, input_file)


UNCLEAR = httpx.ReadTimeout("timed out")
UNREACHED = httpx.ConnectError("gone")


@pytest.mark.parametrize(
    ("replies", "did_nothing"),
    [
        ([refusal(400)], True),
        ([refusal(401)], True),
        ([refusal(429), refusal(403)], True),
        ([UNREACHED, refusal(404)], True),
        ([UNCLEAR, refusal(404)], False),
        ([refusal(503), refusal(404)], False),
        ([UNREACHED] * 4, True),
        ([UNREACHED, UNCLEAR, refusal(404)], False),
        ([UNREACHED] * 3 + [UNCLEAR], False),
    ],
)
@pytest.mark.parametrize("name", ["upload", "create"])
async def test_an_error_tells_whether_the_server_did_nothing(clock, server, input_file, name, replies, did_nothing):
    """A single attempt with an unclear result is enough to leave `did_nothing` unset."""
    CALLS[name].route(server).mock(side_effect=replies)
    CALLS["list"].route(server).mock(return_value=listing())
    async with connect(patience=Patience(retries=3)) as api:
        with pytest.raises(errors.RunError) as caught:
            await CALLS[name].make(api, input_file)
    assert caught.value.did_nothing is did_nothing


REFUSALS = {
    "400": (refusal(400, "Bad purpose.", code="invalid_purpose"), errors.RunError, 400, "invalid_purpose"),
    "400 with a type only": (refusal(400), errors.RunError, 400, "error_type"),
    "401": (
        refusal(401, "Incorrect API key.", code="invalid_api_key"),
        errors.AuthenticationError,
        401,
        "invalid_api_key",
    ),
    "403": (refusal(403, "Not yours.", code="forbidden"), errors.AuthenticationError, 403, "forbidden"),
    "413 with an HTML page": (httpx.Response(413, html="<p>Too large</p>"), errors.RunError, 413, None),
    "422 of another shape": (httpx.Response(422, json={"detail": "Not so."}), errors.RunError, 422, None),
    "no money": (
        refusal(429, "You exceeded your current quota.", type="insufficient_quota", code="insufficient_quota"),
        errors.QuotaError,
        429,
        "insufficient_quota",
    ),
    "no money, by its type": (refusal(429, type="insufficient_quota"), errors.QuotaError, 429, "insufficient_quota"),
    "no money, quoted by a gateway": (
        refusal(
            429,
            "litellm: Error code: 429 - {'error': {'message': 'You exceeded your current quota.', 'type':"
            " 'insufficient_quota', 'param': None, 'code': 'insufficient_quota'}}",
            code="429",
        ),
        errors.QuotaError,
        429,
        "insufficient_quota",
    ),
    "too many enqueued tokens, quoted by a gateway": (
        refusal(
            400,
            "Error code: 400 - {'error': {'code': 'token_limit_exceeded', 'message': 'Too many tokens.'}}",
            code="400",
        ),
        errors.RunError,
        400,
        "token_limit_exceeded",
    ),
    "too many enqueued tokens": (
        refusal(400, "Enqueued token limit reached.", code="token_limit_exceeded"),
        errors.RunError,
        400,
        "token_limit_exceeded",
    ),
    "too many enqueued tokens, by 429": (
        refusal(429, "Enqueued token limit reached.", code="token_limit_exceeded"),
        errors.RunError,
        429,
        "token_limit_exceeded",
    ),
    "hard limit": (
        refusal(400, "Billing hard limit has been reached.", code="billing_hard_limit_reached"),
        errors.QuotaError,
        400,
        "billing_hard_limit_reached",
    ),
}


@pytest.mark.parametrize(("answer", "kind", "status_code", "code"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refusal_is_raised_without_a_retry(
    api, server, clock, call, input_file, answer, kind, status_code, code
):
    """The error has the API's own message, status code and code."""
    if call.path.endswith("cancel") and kind is errors.RunError and status_code == 400:
        pytest.skip("a 400 means that the batch cannot be cancelled any more")
    route = call.route(server).mock(return_value=answer)
    with pytest.raises(errors.RunError) as caught:
        await call.make(api, input_file)
    assert type(caught.value) is kind
    assert (caught.value.status_code, caught.value.code) == (status_code, code)
    assert str(status_code) in str(caught.value)
    message = (
        answer.json().get("error", {}).get("message", "Not so.")
        if "json" in answer.headers["content-type"]
        else "Too large"
    )
    assert message in str(caught.value)
    assert route.call_count == 1
    assert clock.pauses == []


# The key.


def visible_text(error: BaseException, caplog) -> str:
    """Return all text of an error that a user, a log or a bug report would show."""
    return "".join([*traceback.format_exception(type(error), error, error.__traceback__), repr(error), caplog.text])


ECHOES = {
    "in the message": lambda code: refusal(code, f"Incorrect API key provided: {API_KEY}."),
    "in an HTML page": lambda code: httpx.Response(code, html=f"<p>Authorization: Bearer {API_KEY}</p>"),
    "in other JSON": lambda code: httpx.Response(code, json={"detail": {"sent": API_KEY}}),
    "where a long page is cut": lambda code: httpx.Response(code, text="x" * 180 + f" {API_KEY} " + "x" * 180),
}


@pytest.mark.parametrize("status_code", [401, 403, 413, 429, 500])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
async def test_a_key_that_the_server_echoes_is_masked(clock, server, call, input_file, caplog, echo, status_code):
    """The key appears in no exception's text, no traceback and no log line."""
    call.route(server).mock(side_effect=lambda request: echo(status_code))
    async with connect(patience=Patience(total=5.0)) as api:
        with caplog.at_level(logging.DEBUG, LOGGER.name), pytest.raises(errors.RunError) as caught:
            await call.make(api, input_file)
    text = visible_text(caught.value, caplog)
    assert API_KEY not in text
    assert API_KEY[:12] not in text


async def test_a_key_in_a_connection_error_is_masked(clock, server, input_file, caplog):
    """A proxy's address in an error's text may contain the key."""
    CALLS["retrieve"].route(server).mock(side_effect=httpx.ConnectError(f"no route for {API_KEY}"))
    async with connect(patience=Patience(retries=2)) as api:
        with caplog.at_level(logging.DEBUG, LOGGER.name), pytest.raises(errors.ConnectionFailedError) as caught:
            await api.retrieve("batch_1")
    assert API_KEY not in visible_text(caught.value, caplog)


# The client and the replies.


async def test_the_sdk_client_is_azures_if_a_version_is_given():
    plain = sdk_client(BASE_URL, API_KEY, timeout=1.0, headers={"x-team": "a"})
    azure = sdk_client("https://example.com/openai", API_KEY, timeout=1.0, azure_api_version="2025-01-01")
    async with plain, azure:
        assert not isinstance(plain, openai.AsyncAzureOpenAI)
        assert (str(plain.base_url), plain.api_key) == (f"{BASE_URL}/", API_KEY)
        assert plain.default_headers["x-team"] == "a"
        assert isinstance(azure, openai.AsyncAzureOpenAI)
        assert str(azure.base_url) == "https://example.com/openai/"


@pytest.mark.parametrize(
    ("body", "code"),
    [({"code": "a", "type": "b"}, "a"), ({"code": None, "type": "b"}, "b"), ({}, None), ("text", None), (None, None)],
)
def test_an_error_code_falls_back_to_the_type(body, code):
    response = httpx.Response(400, request=httpx.Request("POST", BASE_URL + CHAT))
    assert error_code(openai.APIStatusError("No.", response=response, body=body)) == code


FAILED = httpx.Response(500, json={"error": {"message": "The server had an error."}})


@pytest.mark.parametrize("name", ["upload", "create", "retrieve", "download", "cancel"])
@pytest.mark.parametrize("proof", ["a probe", "other calls"])
async def test_a_500_of_one_call_ends_the_run_within_minutes(clock, server, input_file, name, proof):
    """The server answers its list of models, or another call of the run."""
    call = CALLS[name]
    server.get("/batches/reached").mock(return_value=reply(batch("reached")))
    server.get("/batches").mock(return_value=listing() if name == "create" else FAILED)
    if proof == "a probe":
        server.get("/files").mock(return_value=FAILED)
        server.get("/models").mock(return_value=reply({"object": "list", "data": []}))
    async with connect() as api:
        await api.retrieve("reached")

        async def fail(request: httpx.Request) -> httpx.Response:
            if proof == "other calls":
                await api.retrieve("reached")
            return FAILED

        call.route(server).mock(side_effect=fail)
        with pytest.raises(errors.ConnectionFailedError, match="while it answers other calls") as caught:
            await call.make(api, input_file)
    assert caught.value.status_code == 500
    assert not caught.value.did_nothing
    assert 300.0 <= clock.now < 500.0


@pytest.mark.parametrize(
    "failure", [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(502)], ids=["503", "refused", "502"]
)
async def test_an_outage_of_one_call_is_waited_for(clock, server, input_file, failure):
    """Only a 500 is a fault of one call: a gateway answers 502 and 503 while the server behind it restarts."""
    server.get("/batches/reached").mock(return_value=reply(batch("reached")))
    outage = [FAILED, failure] * 30
    CALLS["retrieve"].route(server).mock(side_effect=[*outage, CALLS["retrieve"].success])
    async with connect() as api:
        await api.retrieve("reached")
        await CALLS["retrieve"].make(api, input_file)
    assert clock.now > 1_000.0


async def test_a_500_of_every_call_is_waited_for(clock, server, input_file):
    """An outage of the whole server passes."""
    server.get("/batches/reached").mock(return_value=reply(batch("reached")))
    for path in ("/batches", "/files", "/models"):
        server.get(path).mock(return_value=FAILED)
    CALLS["retrieve"].route(server).mock(side_effect=[*[FAILED] * 40, CALLS["retrieve"].success])
    async with connect() as api:
        await api.retrieve("reached")
        await CALLS["retrieve"].make(api, input_file)
    assert clock.now > 1_000.0


async def test_each_batch_is_polled_if_the_list_alone_fails(clock, server):
    server.get("/batches").mock(return_value=FAILED)
    for batch_id in ("batch_1", "batch_2"):
        server.get(f"/batches/{batch_id}").mock(return_value=reply(batch(batch_id)))
    async with connect() as api:
        await api.retrieve("batch_1")
        server.get("/models").mock(return_value=reply({"object": "list", "data": []}))
        for _ in range(3):
            assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert 300.0 <= clock.now < 500.0
