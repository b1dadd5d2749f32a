"""What several test modules share."""

from __future__ import annotations

import json
import logging
from logging.handlers import QueueHandler

import pytest

from distilabel_openai_batch.api import creation, files, transport
from distilabel_openai_batch.sandbox import Sandbox
from tests.support.environment import API_KEY, ROOT
from tests.support.fast_distilabel import hurry


@pytest.fixture(scope="session", autouse=True)
def in_a_hurry():
    """No test waits for what it does not test."""
    hurry()


@pytest.fixture(autouse=True)
def no_log_of_a_pipeline_that_has_ended():
    """distilabel leaves the root logger with a queue that it has closed, and each later line with a traceback."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, QueueHandler)]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def running_sandbox():
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox, monkeypatch, tmp_path_factory):
    """A server that has seen nothing yet, a ledger that is empty, and an environment that leads to both."""
    running_sandbox.reset()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path_factory.mktemp("ledger")))
    monkeypatch.setenv("OPENAI_BASE_URL", running_sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    return running_sandbox


@pytest.fixture
def quick_retries(monkeypatch):
    """Pauses between repetitions of a call that last moments, however often it fails."""
    monkeypatch.setattr(transport.Patience, "pause", lambda self, attempt: 0.01)
    monkeypatch.setattr(creation, "CREATION_SECONDS", 0.05)
    monkeypatch.setattr(files, "RESULTS_VISIBLE_SECONDS", 0.1)


@pytest.fixture(scope="session")
def instructions() -> list[dict[str, str]]:
    """Real instructions where there are some beside the project, the demo's otherwise."""
    folder = ROOT.parent / "shared" / "data"
    paths = [folder / "seed_tasks.jsonl", folder / "user_oriented_instructions.jsonl"]
    if not all(path.exists() for path in paths):
        paths = [ROOT / "examples" / "instructions.jsonl"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [{"instruction": json.loads(line)["instruction"]} for line in lines]
