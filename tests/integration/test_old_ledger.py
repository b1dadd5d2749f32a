"""A run continues from a ledger that an older release wrote."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

import httpx
import orjson
import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState
from tests.support.environment import API_KEY, load_as_new_process, route_host
from tests.support.ledgers import OLD_OPEN_JOB, write_old_ledger

HOST = "sandbox.test"
"""The server's host in the old ledger. A `custom_id` depends on the base URL, so the host cannot be changed."""


@pytest.fixture
def ledger_dir(sandbox, monkeypatch, tmp_path):
    """The old ledger's directory; requests to the old ledger's server go to the sandbox."""
    route_host(monkeypatch, HOST, sandbox.base_url)
    monkeypatch.setattr(sys, "argv", ["questions.py"])
    write_old_ledger(tmp_path / "ledger")
    return tmp_path / "ledger"


def ask(ledger_dir, first: int, last: int) -> list[str | None]:
    """Ask for the numbers from `first` to `last` as the older release's run did, and return the generations."""
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini", base_url=f"http://{HOST}/v1", ledger_dir=str(ledger_dir), min_poll_interval=0.02
    )
    questions = [[{"role": "user", "content": f"Say number {number}."}] for number in range(first, last + 1)]
    return [output["generations"][0] for output in load_as_new_process(llm).generate(questions)]


def test_recorded_answers_are_delivered_without_a_call(sandbox, ledger_dir):
    """The older release sent `logprobs: false` and `top_logprobs: null`, which this release leaves out."""
    reader = LedgerReader(ledger_dir)
    recorded = [entry.answer.body["choices"][0]["message"]["content"] for entry in reader.answers(reader.scopes()[0])]

    assert ask(ledger_dir, 0, 4) + ask(ledger_dir, 6, 7) == recorded

    assert sandbox.calls() == []


def test_a_failed_request_is_submitted_again(sandbox, ledger_dir):
    answers = ask(ledger_dir, 4, 6)
    assert "Say number 5" in answers[1]
    assert list(sandbox.books().billed.values()) == [1]


def test_the_open_job_is_collected(sandbox, ledger_dir):
    """The test creates the open job's batch in the sandbox, which has never seen the older release's run."""
    job = LedgerReader(ledger_dir).jobs()[2]
    custom_ids = [orjson.loads(line)["custom_id"] for line in OLD_OPEN_JOB.read_bytes().splitlines()]
    with closing(sqlite3.connect(ledger_dir / FILE_NAME)) as database, database:
        [key] = database.execute("SELECT key FROM jobs WHERE batch_id = ?", (job.batch_id,)).fetchone()
        batch = create_batch(sandbox, key)
        columns = (batch["id"], batch["input_file_id"], job.batch_id)
        database.execute("UPDATE jobs SET batch_id = ?, input_file_id = ? WHERE batch_id = ?", columns)

    answers = ask(ledger_dir, 8, 11)

    assert [f"Say number {number}" in answer for number, answer in zip(range(8, 12), answers, strict=True)] == [
        True
    ] * 4
    assert len(sandbox.books().batches) == 1
    assert sandbox.books().billed == dict.fromkeys(custom_ids, 1)
    assert LedgerReader(ledger_dir).jobs()[2].state is JobState.COLLECTED


def create_batch(sandbox, key: str) -> dict:
    """Upload the open job's input file, create its batch, and return the batch object."""
    with httpx.Client(base_url=sandbox.base_url, headers={"Authorization": f"Bearer {API_KEY}"}) as client:
        files = {"file": ("input.jsonl", OLD_OPEN_JOB.read_bytes())}
        upload = client.post("/files", files=files, data={"purpose": "batch"}).raise_for_status().json()
        body = {
            "input_file_id": upload["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {KEY_METADATA: key},
        }
        return client.post("/batches", json=body).raise_for_status().json()
