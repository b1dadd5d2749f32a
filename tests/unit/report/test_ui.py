"""Tests of `report.ui`, through the application without a server."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.row_pages import RowReader
from distilabel_openai_batch.report import ui
from distilabel_openai_batch.report.ui import LivePage, create_app
from tests.support.ledgers import write_example_ledger

TOKEN = "secret"
LINE = b'{"custom_id":"a","body":{"messages":[{"role":"user","content":"Why\\u202e?"}]}}'


class KnownPrompts:
    """Prompts that are known after `load`."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, str | None]] = []

    def lines(self, custom_ids):
        return dict.fromkeys(custom_ids, LINE) if self.loaded else {}

    def find(self, custom_ids, text):
        return set()

    async def load(self, base_url, file_id):
        if file_id == "gone":
            raise OpenAIBatchError("The input file gone\x1b is gone.")
        self.loaded.append((base_url, file_id))


@pytest.fixture
def prompts() -> KnownPrompts:
    return KnownPrompts()


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Return the directory of a ledger that no test changes."""
    pytest.importorskip("vl_convert", reason="the extra `ui` is not installed")
    directory = tmp_path_factory.mktemp("ledger")
    write_example_ledger(directory)
    return directory


@pytest.fixture
def client(directory, prompts, monkeypatch) -> TestClient:
    monkeypatch.setattr(ui, "_REST_FACTOR", 0)
    page = LivePage(RowReader(directory), prompts)
    return TestClient(create_app(page, TOKEN), base_url="http://127.0.0.1", raise_server_exceptions=False)


def get(client: TestClient, path: str, **parameters):
    return client.get(f"/{TOKEN}/{path}", params=parameters)


@pytest.mark.parametrize("path", ["", "ui.js", "sections", "rows", "row", "request"])
def test_each_address_needs_the_token_and_this_machine(client, path):
    for token in ("", "wrong", "secre", "geheimß"):
        assert client.get(f"/{token}/{path}").status_code == 404
    assert client.get(f"/{TOKEN}/{path}", headers={"Host": "evil.example"}).status_code == 400


def test_the_page_loads_nothing_from_elsewhere(client):
    reply = get(client, "")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["Cache-Control"] == "no-store"
    assert "://" not in reply.text
    assert "://" not in get(client, "ui.js").text


def test_sections_are_sent_when_they_have_changed(client):
    first = get(client, "sections", scope=0, width=311).json()
    assert "Answers over time" in first["html"]
    labels = [scope["label"] for scope in first["scopes"]]
    assert "preferences/generate" in labels
    assert get(client, "sections", scope=0, width=311, seen=first["seen"]).status_code == 204
    one = get(client, "sections", scope=first["scopes"][0]["id"], width=311, seen=first["seen"]).json()
    assert one["html"].count("preferences/judge") == 0


def test_rows_have_excerpts_and_a_row_has_its_whole_texts(client, prompts):
    reply = get(client, "rows", scope=1).json()
    first = reply["rows"][0]
    assert len(reply["rows"]) == 50
    assert reply["next"] == 50
    assert (first["state"], first["prompt"], first["reason"]) == ("answered", None, None)
    [failed, *_] = get(client, "rows", scope=1, state="failed").json()["rows"]
    assert failed["reason"]
    assert failed["code"]
    assert get(client, "rows", scope=1, number=51).json()["rows"][0]["id"] == 51
    prompts.loaded.append(("", ""))
    row = get(client, "row", id=first["id"]).json()
    assert row["prompt"] == "Why\\u202e?"
    assert dict(row["facts"])["tokens in"]
    assert row["response"]


def test_a_request_is_loaded_and_sent_as_the_line_of_its_file(client, prompts):
    reply = get(client, "request", id=1)
    assert (reply.status_code, reply.content) == (200, LINE)
    assert len(prompts.loaded) == 1


def test_an_error_is_sent_as_its_text(client, prompts, monkeypatch):
    monkeypatch.setattr(RowReader, "find_input_file", lambda self, row: ("", "gone"))
    reply = get(client, "request", id=1)
    assert (reply.status_code, reply.json()) == (502, {"error": "The input file gone\\x1b is gone."})


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("row", {"id": 10**9}, 404),
        ("rows", {"scope": "x"}, 400),
        ("rows", {"scope": 1, "state": "odd"}, 400),
        ("sections", {"scope": 0, "width": 7}, 400),
    ],
)
def test_a_wrong_argument_is_refused(client, path, parameters, status):
    assert get(client, path, **parameters).status_code == status
