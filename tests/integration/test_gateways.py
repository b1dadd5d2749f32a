"""Gateways in front of a server: required headers, extra fields, and metadata of batches."""

from __future__ import annotations

import logging
import sys

import pytest

from distilabel_openai_batch.sandbox import Settings
from tests.support.commands import generate, run_command, submit_only

TOKEN = "gateway-token-that-must-not-leak"
HEADERS = {"X-Gateway-Token": TOKEN, "X-Provider": "one"}
OPTIONS = [option for name, value in HEADERS.items() for option in ("--header", f"{name}: {value}")]

pytestmark = pytest.mark.usefixtures("quick_retries", "small_packs")


def lines(headers: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in headers.items())


@pytest.fixture
def gateway(sandbox):
    """The sandbox behind a gateway that requires headers."""
    sandbox.reset(Settings(required_headers=HEADERS, in_progress_seconds=600.0))
    return sandbox


@pytest.mark.parametrize("by", ["option", "variable", "both"])
def test_headers_reach_the_calls_of_each_command(gateway, monkeypatch, tmp_path, by):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    submit_only(default_headers=HEADERS)
    [batch] = gateway.books().batches
    options: list[str] = []
    if by == "option":
        options = OPTIONS
    elif by == "variable":
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", lines(HEADERS))
    else:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", lines(HEADERS | {"X-Provider": "another"}))
        options = ["--header", "x-provider:one"]
    commands = [
        ("jobs", "--look"),
        ("show", batch["id"], "--look"),
        ("forget", "script.py", "--lost", "--yes"),
        ("cancel", "--all", "--yes"),
        ("watch", "--interval", "0.05"),
    ]
    for command in commands:
        result = run_command(*command, *options)
        assert result.exit_code == 0, result.output
        assert TOKEN not in result.output
    gateway.configure(in_progress_seconds=0.0)
    result = run_command("adopt", batch["id"], "elsewhere", "--ledger-dir", tmp_path / "other", *options)
    assert result.exit_code == 0, result.output
    output = run_command("doctor", *options).output
    assert "✓ batches" in output
    assert "✓ files" in output
    assert TOKEN not in output


def test_without_the_headers_the_gateways_error_is_shown(gateway):
    submit_only(default_headers=HEADERS)
    result = run_command("jobs", "--look")
    assert result.exit_code == 1
    assert "The gateway requires the header" in result.output


def test_a_header_without_a_colon_is_an_error_without_its_text(gateway):
    submit_only(default_headers=HEADERS)
    result = run_command("jobs", "--look", "--header", TOKEN)
    assert result.exit_code == 1
    assert "Header 1 of --header has no colon" in result.output
    assert TOKEN not in result.output


def test_extra_fields_and_metadata_reach_the_server(sandbox, caplog):
    with caplog.at_level(logging.INFO):
        answers = generate(
            upload_extra={"target_model_names": "gpt-4o-batch", "custom_llm_provider": "azure"},
            batch_extra={"portkey_options": {"x-portkey-api-key": TOKEN}, "model": "one"},
            batch_metadata={"team": "data", "description": "Preferences"},
        )
    assert all(answers)
    books = sandbox.books()
    [batch] = books.batches
    assert batch["extra_fields"] == {"portkey_options": {"x-portkey-api-key": TOKEN}, "model": "one"}
    [upload] = [file for file in books.files if file["purpose"] == "batch"]
    assert upload["extra_fields"] == {"target_model_names": "gpt-4o-batch", "custom_llm_provider": "azure"}
    assert batch["metadata"]["team"] == "data"
    assert batch["metadata"]["description"] == "Preferences"
    assert "distilabel_openai_batch_key" in batch["metadata"]
    assert TOKEN not in caplog.text


def test_other_extra_fields_and_metadata_submit_nothing_again(sandbox):
    """The fields choose the way of a request, and are no part of the request."""
    answers = generate(upload_extra={"custom_llm_provider": "one"}, batch_metadata={"team": "data"})
    assert generate(batch_extra={"custom_llm_provider": "two"}, batch_metadata={"team": "other"}) == answers
    assert len(sandbox.books().batches) == 1
