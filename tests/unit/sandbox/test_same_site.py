"""Calls of other sites' pages, which the sandbox refuses at every path."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from distilabel_openai_batch.sandbox.same_site import foreign_site

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://sandbox:1"},
    {"Origin": "https://sandbox"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://sandbox"},
]
OWN = [{}, {"Origin": "http://sandbox"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
CALLS = [
    ("POST", "/sandbox/reset"),
    ("PATCH", "/sandbox/settings"),
    ("DELETE", "/sandbox/faults"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/batches"),
    ("GET", "/sandbox/books"),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_call_of_another_sites_page_is_refused(api, method, path, headers):
    """A form's content type needs no permission of the server, so the call would have its effect."""
    reply = await api.http.request(method, path, headers={"Content-Type": "text/plain", **headers}, content="{}")
    assert reply.status_code == 403
    assert "other sites' pages" in reply.json()["error"]["message"]
    assert (await api.http.get("/sandbox/calls")).json() == []


@pytest.mark.parametrize("headers", OWN, ids=str)
async def test_calls_of_clients_and_of_an_own_page_are_answered(api, headers):
    assert (await api.http.post("/sandbox/reset", headers=headers, json={})).status_code == 200


def scope(server: str, host: str) -> dict:
    return {"type": "http", "scheme": "http", "server": (server, 8000), "headers": [(b"host", host.encode())]}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "api.localhost", "[::1]:8000"])
@pytest.mark.parametrize("server", ["127.0.0.1", "::1"])
def test_a_local_server_is_called_by_a_local_name(server, host):
    assert foreign_site(scope(server, host)) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"]
)
@pytest.mark.parametrize("server", ["127.0.0.1", "::1"])
def test_a_local_server_refuses_a_name_that_was_rebound(server, host):
    assert foreign_site(scope(server, host)) == f"Host: {host}"


def test_a_server_for_other_machines_has_any_name():
    assert foreign_site(scope("192.0.2.7", "sandbox.example")) is None


def test_a_running_sandbox_refuses_a_rebound_name(sandbox):
    address = urlsplit(sandbox.base_url)
    for host, status in (("evil.example", 403), (address.netloc, 200)):
        with closing(HTTPConnection(address.hostname, address.port, timeout=30)) as connection:
            connection.request("POST", "/sandbox/reset", json.dumps({}), {"Host": host})
            assert connection.getresponse().status == status
