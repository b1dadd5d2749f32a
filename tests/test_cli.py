"""The command line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from distilabel_openai_batch.cli import app

COMMAND = Path(sys.executable).with_name("distilabel-openai-batch")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help_is_helpful(arguments):
    """It says what the command is for."""
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0
    assert "Batch API" in ran.output


def test_serve_answers_until_it_is_stopped():
    """It says where it listens, and what to set."""
    with subprocess.Popen([COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            told = ""
            while not (address := re.search(r"http://127\.0\.0\.1:\d+/v1", told)):
                line = server.stdout.readline()
                assert line, told
                told += line
            answer = httpx.get(f"{address[0]}/batches", headers={"Authorization": "Bearer any"})
            assert answer.json()["data"] == []
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)


def test_serve_without_its_packages_says_what_to_install(monkeypatch):
    """Not a traceback."""
    monkeypatch.setitem(sys.modules, "distilabel_openai_batch.sandbox", None)
    ran = CliRunner().invoke(app, ["serve"])
    assert ran.exit_code == 1
    assert "pip install 'distilabel-openai-batch[sandbox]'" in ran.output
