"""Command line of `python -m distilabel_openai_batch.sandbox`, without a process of its own."""

from __future__ import annotations

import socket
import sys

import pytest
from starlette.testclient import TestClient

from distilabel_openai_batch.sandbox import Dialect, RequestFailure, Settings, __main__, create_app, server


def run_main(monkeypatch, *arguments) -> str | int | None:
    """Run the command, and return the code or the message of its end."""
    monkeypatch.setattr(sys, "argv", ["sandbox", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    return ended.value.code


def test_help_names_each_setting(monkeypatch, capsys):
    assert run_main(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for model in (Settings, RequestFailure, Dialect):
        for name in model.model_fields:
            assert f"\n  {name}" in printed


def test_a_taken_port_gives_one_line(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = run_main(monkeypatch, "--port", port)
    assert message.startswith(f"Cannot listen on 127.0.0.1:{port}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(["--port", "70000"], "70000 is no port"), (["--settings", '{"sed": 1}'], "sed"), (["--settings", "["], "JSON")],
)
def test_wrong_arguments_give_an_error_without_a_traceback(monkeypatch, capsys, arguments, error):
    assert run_main(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert error in printed
    assert "Traceback" not in printed


def test_log_has_a_line_for_each_call(capsys):
    with TestClient(create_app(on_call=server._print_call)) as client:
        client.get("/v1/files?limit=2", headers={"Authorization": "Bearer key"})
        client.get("/v1/batches/batch_1", headers={"Authorization": "Bearer key"})
    lines = [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["GET /v1/files?limit=2 200", "GET /v1/batches/batch_1 404"]


@pytest.mark.parametrize("dialect", [Dialect(), Dialect(azure=True)])
def test_the_greeting_advises_no_key_that_the_sandbox_refuses(dialect):
    """The keys themselves and the values of headers stay out of the terminal."""
    settings = Settings(api_keys=["sk-secret"], required_headers={"X-Team": "hidden"}, dialect=dialect)
    greeting = server._greeting("http://127.0.0.1:8000/v1", settings)
    assert "API_KEY=…    # one of `api_keys`" in greeting
    assert "OPENAI_CUSTOM_HEADERS=…    # with X-Team" in greeting
    assert not any(text in greeting for text in ("anything", "sk-secret", "hidden"))
    assert "API_KEY=anything" in server._greeting("http://127.0.0.1:8000/v1", Settings(dialect=dialect))
