"""Redirects: within the server's origin only, and a file's content from a storage that gets no header of ours."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import pairwise

import httpx
import openai
import pytest
import respx

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.transport import Patience, sdk_client
from tests.support.batch_api import API_KEY, BASE_URL, CALLS, CHAT, INPUT, LOGGER, reply

OTHER_ORIGINS = [
    "https://other.example.org",
    "http://api.example.com",
    "https://api.example.com:8443",
    "https://api.example.com.evil.org",
    "https://me:secret@evil.org",
    "//evil.org",
]
SECRET_HEADERS = {"X-Gateway-Key": "gateway-secret", "Cookie": "sid=cookie-secret"}
STATUSES = [301, 302, 303, 307, 308]
CONTENT = CALLS["download"]
STORAGE = "https://storage.example.org/signed"


@pytest.fixture
def internet():
    """Every host; a call of a host without a route fails the test."""
    with respx.mock(assert_all_called=False) as router:
        router.get(f"{BASE_URL}/files").mock(return_value=reply({"object": "list", "data": []}))
        yield router


@asynccontextmanager
async def connect(**options):
    client = sdk_client(
        options.pop("base_url", BASE_URL), API_KEY, timeout=5.0, **{"headers": SECRET_HEADERS, **options}
    )
    async with client:
        yield BatchAPI(client, Patience(), LOGGER)


def redirect(status: int, location: str) -> httpx.Response:
    return httpx.Response(status, headers={"location": location})


def hosts_called(internet: respx.Router) -> set[str]:
    return {call.request.url.host for call in internet.calls}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("origin", OTHER_ORIGINS)
@pytest.mark.parametrize("name", ["upload", "create", "retrieve", "list", "cancel"])
async def test_a_redirect_to_another_origin_is_one_error_that_names_both(
    clock, internet, input_file, name, origin, status
):
    """The other host gets no call, and no call is repeated."""
    route = internet.request(CALLS[name].method, f"{BASE_URL}{CALLS[name].path}").mock(
        return_value=redirect(status, f"{origin}/v1/elsewhere?token=in-the-query")
    )
    async with connect() as api:
        with pytest.raises(errors.RunError) as caught:
            await CALLS[name].make(api, input_file)
    text = str(caught.value)
    assert text.startswith("https://api.example.com redirects ")
    assert httpx.URL("https://api.example.com").join(origin).netloc.decode() in text
    assert "secret" not in text
    assert "in-the-query" not in text
    assert (caught.value.status_code, route.call_count, clock.pauses) == (status, 1, [])
    assert hosts_called(internet) == {"api.example.com"}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_redirect_of_a_synchronous_request_is_an_error(clock, internet, status):
    route = internet.post(f"{BASE_URL}/chat/completions").mock(
        return_value=redirect(status, "https://other.example.org/v1/chat/completions")
    )
    async with connect() as api:
        with pytest.raises(errors.RunError, match=r"https://other.example.org"):
            await api.sync.send(CHAT, b'{"model":"m","messages":[{"role":"user","content":"private"}]}')
    assert (route.call_count, hosts_called(internet)) == (1, {"api.example.com"})


@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("name", ["upload", "create", "cancel"])
async def test_a_redirect_that_drops_the_body_is_an_error_at_once(clock, internet, input_file, name, status):
    internet.post(f"{BASE_URL}{CALLS[name].path}").mock(return_value=redirect(status, "/v2/elsewhere?token=secret"))
    elsewhere = internet.route(path="/v2/elsewhere").mock(return_value=CALLS[name].success)
    async with connect() as api:
        with pytest.raises(errors.RunError) as caught:
            await CALLS[name].make(api, input_file)
    assert "https://api.example.com/v2/elsewhere (HTTP" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not elsewhere.called
    assert clock.pauses == []
    # A server may redirect a call that has had its effect.
    assert caught.value.did_nothing is (status == 301)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("name", ["upload", "create", "cancel", "retrieve", "list"])
async def test_a_redirect_within_the_origin_keeps_method_body_and_headers(clock, internet, input_file, name, status):
    call = CALLS[name]
    first = internet.request(call.method, f"{BASE_URL}{call.path}").mock(
        return_value=redirect(status, "https://API.example.com:443/v2/elsewhere")
    )
    second = internet.request(call.method, "https://api.example.com/v2/elsewhere").mock(return_value=call.success)
    async with connect() as api:
        await call.make(api, input_file)
    sent, sent_again = first.calls.last.request, second.calls.last.request
    assert sent_again.content == sent.content
    for header in ("authorization", "x-gateway-key", "content-type"):
        assert sent_again.headers.get(header) == sent.headers.get(header)


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_get_is_redirected_within_the_origin_by_any_status(clock, internet, input_file, status):
    internet.get(f"{BASE_URL}/batches/batch_1").mock(return_value=redirect(status, "/v2/batch"))
    internet.get("https://api.example.com/v2/batch").mock(return_value=CALLS["retrieve"].success)
    async with connect() as api:
        assert (await api.retrieve("batch_1")).id == "batch_1"


async def test_a_circle_of_redirects_is_an_error_at_once(clock, internet):
    internet.get(f"{BASE_URL}/batches/batch_1").mock(return_value=redirect(307, "/v1/batches/batch_1"))
    async with connect() as api:
        with pytest.raises(errors.RunError, match="again and again"):
            await api.retrieve("batch_1")
    assert clock.pauses == []


@pytest.mark.parametrize("location", ["http://[::1", "https://\x7f/", "mailto:a@b", "ftp://api.example.com/"])
async def test_a_location_that_no_call_can_reach_is_an_error(clock, internet, location):
    internet.get(f"{BASE_URL}/batches/batch_1").mock(return_value=redirect(302, location))
    async with connect() as api:
        with pytest.raises(errors.RunError, match="redirects"):
            await api.retrieve("batch_1")
    assert clock.pauses == []


async def test_azures_key_is_not_redirected(clock, internet):
    """httpx drops `Authorization` for another host, and would send `api-key` on."""
    address = "https://mine.openai.azure.com/openai"
    internet.get(url__startswith=f"{address}/batches/batch_1").mock(
        return_value=redirect(302, "https://other.example.org/")
    )
    async with connect(base_url=address, azure_api_version="2024-10-21") as api:
        with pytest.raises(errors.RunError, match=r"another host, https://other.example.org"):
            await api.retrieve("batch_1")
    assert hosts_called(internet) == {"mine.openai.azure.com"}


# Contents of files.


@pytest.mark.parametrize("status", STATUSES)
async def test_a_files_content_is_read_from_a_storage_without_our_headers(clock, internet, input_file, status):
    """Servers store files elsewhere, and redirect to an address that they have signed."""
    internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(status, f"{STORAGE}?signature=abc"))
    stored = internet.get(url__startswith=STORAGE).mock(return_value=httpx.Response(200, content=INPUT))
    async with connect() as api:
        await CONTENT.make(api, input_file)
    assert input_file.with_name("output.jsonl").read_bytes() == INPUT
    sent = stored.calls.last.request
    assert (sent.method, sent.content, sent.url.query) == ("GET", b"", b"signature=abc")
    assert set(sent.headers) == {"host", "accept", "accept-encoding", "connection", "user-agent"}
    assert sent.headers["accept-encoding"] == "identity"
    assert API_KEY not in str(sent.headers)


async def test_a_cut_download_from_a_storage_is_continued(clock, internet, input_file):
    async def cut():
        yield INPUT[:5]
        raise httpx.ReadError("cut")

    route = internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(302, STORAGE))
    stored = internet.get(STORAGE).mock(
        side_effect=[httpx.Response(200, content=cut()), httpx.Response(206, content=INPUT[5:])]
    )
    async with connect() as api:
        await CONTENT.make(api, input_file)
    assert input_file.with_name("output.jsonl").read_bytes() == INPUT
    assert stored.calls.last.request.headers["range"] == "bytes=5-"
    assert route.call_count == 2


async def test_a_storage_that_has_the_whole_file_already_sent_ends_the_download(clock, internet, input_file):
    async def cut_at_the_end():
        yield INPUT
        raise httpx.ReadError("cut")

    internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(302, STORAGE))
    complete = httpx.Response(416, headers={"content-range": f"bytes */{len(INPUT)}"})
    internet.get(STORAGE).mock(side_effect=[httpx.Response(200, content=cut_at_the_end()), complete])
    async with connect() as api:
        await CONTENT.make(api, input_file)
    assert input_file.with_name("output.jsonl").read_bytes() == INPUT


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_refusal_of_a_storage_is_an_error_that_names_the_storage(clock, internet, input_file, status):
    internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(302, f"{STORAGE}?signature=abc"))
    internet.get(url__startswith=STORAGE).mock(return_value=httpx.Response(status, text="<Error>abc</Error>"))
    async with connect() as api:
        with pytest.raises(errors.RunError, match=f"storage.example.org .*HTTP {status}") as caught:
            await CONTENT.make(api, input_file)
    assert "abc" not in str(caught.value)
    assert not isinstance(caught.value, errors.AuthenticationError)


@pytest.mark.parametrize("failure", [httpx.Response(503), httpx.Response(429), httpx.ConnectError("gone")])
async def test_a_failing_storage_is_tried_again(clock, internet, input_file, failure):
    internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(302, STORAGE))
    internet.get(STORAGE).mock(side_effect=[failure, httpx.Response(200, content=INPUT)])
    async with connect() as api:
        await CONTENT.make(api, input_file)
    assert input_file.with_name("output.jsonl").read_bytes() == INPUT
    assert clock.pauses == [0.5]


@pytest.mark.parametrize("hops", [[], [STORAGE]], ids=["by the server", "by the storage"])
async def test_a_content_is_never_redirected_from_https_to_http(clock, internet, input_file, hops):
    addresses = [f"{BASE_URL}{CONTENT.path}", *hops, "http://storage.example.org/plain"]
    for source, target in pairwise(addresses):
        internet.get(source).mock(return_value=redirect(302, target))
    plain = internet.get(addresses[-1]).mock(return_value=httpx.Response(200, content=INPUT))
    async with connect() as api:
        with pytest.raises(errors.RunError, match="another host"):
            await CONTENT.make(api, input_file)
    assert not plain.called


async def test_a_circle_of_storages_is_an_error(clock, internet, input_file):
    internet.get(f"{BASE_URL}{CONTENT.path}").mock(return_value=redirect(302, STORAGE))
    internet.get(STORAGE).mock(return_value=redirect(302, STORAGE))
    async with connect() as api:
        with pytest.raises(errors.RunError, match="again and again"):
            await CONTENT.make(api, input_file)


async def test_the_query_of_the_base_url_is_sent_and_not_shown(clock, internet, caplog):
    route = internet.get(f"{BASE_URL}/batches/batch_1", params={"api_key": "query-secret"})
    route.mock(side_effect=[httpx.Response(503, text="The key query-secret is busy."), CALLS["retrieve"].success])
    async with connect(base_url=f"{BASE_URL}?api_key=query-secret") as api:
        await api.retrieve("batch_1")
    assert route.call_count == 2
    assert "The key *** is busy." in caplog.text
    assert "query-secret" not in caplog.text


@pytest.mark.parametrize("secret", ["gateway-secret", "cookie-secret", API_KEY])
async def test_secrets_that_a_server_quotes_are_masked(clock, internet, secret):
    internet.get(f"{BASE_URL}/batches/batch_1").mock(return_value=httpx.Response(400, text=f"Bad header b'{secret}'."))
    async with connect() as api:
        with pytest.raises(errors.RunError) as caught:
            await api.retrieve("batch_1")
    assert secret not in str(caught.value)
    assert "***" in str(caught.value)


async def test_the_client_sends_the_query_with_azures_version():
    address = "https://mine.openai.azure.com/openai?code=abcd"
    async with sdk_client(address, API_KEY, timeout=5.0, azure_api_version="2024-10-21") as client:
        assert isinstance(client, openai.AsyncAzureOpenAI)
        assert client.default_query == {"code": "abcd", "api-version": "2024-10-21"}
        assert str(client.base_url) == "https://mine.openai.azure.com/openai/"
