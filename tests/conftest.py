"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import json
import logging
from logging.handlers import QueueHandler

import certifi
import hypothesis
import pytest

from distilabel_openai_batch.api import client, creation, files, transport
from distilabel_openai_batch.engine import known_answers
from distilabel_openai_batch.ledger import pack_table
from distilabel_openai_batch.sandbox import Sandbox
from tests.support.environment import API_KEY, ROOT
from tests.support.fast_distilabel import speed_up_distilabel

# No test fails for the time that an example takes.
hypothesis.settings.register_profile("busy machine", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("busy machine")


@pytest.fixture(scope="session", autouse=True)
def own_ledger(tmp_path_factory):
    """Keep the ledgers of tests out of the user's home directory."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path_factory.mktemp("ledger")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_root_certificate(tmp_path_factory):
    """Give the HTTP clients of all processes one root certificate: loading all of them takes longer than most tests."""
    end = "-----END CERTIFICATE-----\n"
    certificate = tmp_path_factory.mktemp("certificates") / "root.pem"
    certificate.write_text(certifi.contents().partition(end)[0] + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", str(certificate))
        yield


@pytest.fixture(scope="session", autouse=True)
def fast_distilabel():
    """Shorten distilabel's waits in every test.

    Each process that a pipeline forks collects garbage when it ends; imported modules and tests are left out.
    """
    speed_up_distilabel()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def root_logger_without_closed_queues():
    """Remove the closed queue that a distilabel pipeline leaves at the root logger: each later log line would fail."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, QueueHandler)]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def running_sandbox():
    """Return a sandbox that all tests of the process share."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox, monkeypatch, tmp_path_factory):
    """Return the sandbox after a reset, with an empty ledger and an environment that names both."""
    running_sandbox.reset()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path_factory.mktemp("ledger")))
    monkeypatch.setenv("OPENAI_BASE_URL", running_sandbox.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", API_KEY)
    return running_sandbox


@pytest.fixture
def quick_retries(monkeypatch):
    """Shorten the pauses between retries of an HTTP request to hundredths of a second."""
    monkeypatch.setattr(transport.Patience, "pause", lambda self, attempt: 0.01)
    monkeypatch.setattr(creation, "CREATION_SECONDS", 0.05)
    monkeypatch.setattr(files, "RESULTS_VISIBLE_SECONDS", 0.1)
    monkeypatch.setattr(client, "FILE_IDS_SECONDS", 0.2)
    monkeypatch.setattr(client, "BATCH_VISIBLE_SECONDS", 0.2)


@pytest.fixture
def small_packs(monkeypatch):
    """Let the ledger put batches of any size into packs, and look up calls of any size, as it does with large ones."""
    monkeypatch.setattr(pack_table, "MIN_PACK", 1)
    monkeypatch.setattr(known_answers, "MIN_REQUESTS", 1)


@pytest.fixture(scope="session")
def instructions() -> list[dict[str, str]]:
    """Return real instructions if the files beside the project exist, else the demo's instructions."""
    folder = ROOT.parent / "shared" / "data"
    paths = [folder / "seed_tasks.jsonl", folder / "user_oriented_instructions.jsonl"]
    if not all(path.exists() for path in paths):
        paths = [ROOT / "examples" / "instructions.jsonl"]
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [{"instruction": json.loads(line)["instruction"]} for line in lines]
