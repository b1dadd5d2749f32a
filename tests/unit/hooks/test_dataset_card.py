"""Tests of `hooks.dataset_card`."""

from __future__ import annotations

import json
import logging

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.hooks.dataset_card import ARTIFACT, BATCHES_FILE, FollowedSession, save_origin
from distilabel_openai_batch.ledger.reader import LedgerReader
from tests.support.ledgers import write_example_ledger


@pytest.fixture
def step(llm, tmp_path):
    with Pipeline(name="preferences", cache_dir=tmp_path):
        step = TextGeneration(name="generate", llm=llm)
    step.set_pipeline_artifacts_path(tmp_path / "artifacts")
    step._logger = logging.getLogger("test.dataset_card")
    return step


def session(directory, requests, batch_ids=()) -> FollowedSession:
    progress = Progress(logging.getLogger("test.dataset_card"))
    progress.on_requested(requests)
    progress.on_answered(requests)
    progress.on_batches_reused(batch_ids)
    [scope] = [entry.name for entry in LedgerReader(directory).scopes() if entry.name.label == "preferences/generate"]
    return FollowedSession(progress, scope, directory)


def test_the_batches_of_all_sessions_are_stored_once(step, tmp_path):
    directory = tmp_path / "ledger"
    write_example_ledger(directory)
    jobs = [job for job in LedgerReader(directory).jobs() if job.scope.label == "preferences/generate" and job.answered]
    first, second, *_ = [job.batch_id for job in jobs]
    save_origin(step, [session(directory, 3, [first]), session(directory, 2, [second, first])])
    folder = step.artifacts_directory / ARTIFACT
    facts = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert (facts["requests"], facts["answered"], facts["failed"]) == (5, 5, 0)
    assert facts["batches"] == f"{first}, {second}"
    assert facts["made by"].startswith("distilabel-openai-batch ")
    batches = json.loads((folder / BATCHES_FILE).read_text(encoding="utf-8"))
    assert [batch["batch_id"] for batch in batches] == [first, second]


def test_a_step_without_requests_stores_nothing(step, tmp_path):
    save_origin(step, [])
    assert not (tmp_path / "artifacts").exists()


def test_a_ledger_that_cannot_be_read_costs_the_batches_alone(step, tmp_path):
    write_example_ledger(tmp_path / "ledger")
    followed = session(tmp_path / "ledger", 3, ["batch"])
    save_origin(step, [FollowedSession(followed.progress, followed.scope, tmp_path / "gone")])
    facts = json.loads((step.artifacts_directory / ARTIFACT / "metadata.json").read_text(encoding="utf-8"))
    assert facts["requests"] == 3
    assert "batches" not in facts
