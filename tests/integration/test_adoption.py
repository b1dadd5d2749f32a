"""Adoption: batches that the ledger does not know are found on the server, and their answers are not billed again."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.sandbox import BatchFault, Fault, ResultFault
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]
pytestmark = pytest.mark.usefixtures("quick_retries", "small_packs")


def generate(questions=QUESTIONS, **fields):
    """Return the outputs of an LLM in a new process."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def lose_ledger():
    """Delete the ledger."""
    shutil.rmtree(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])


def delete_file(sandbox, file_id: str):
    headers = {"Authorization": f"Bearer {API_KEY}"}
    httpx.delete(f"{sandbox.base_url}/files/{file_id}", headers=headers).raise_for_status()


def assert_billed_once(sandbox):
    assert set(sandbox.books().billed.values()) == {1}


def test_the_answers_of_a_batch_that_ended_are_adopted(sandbox):
    answers = generate()
    lose_ledger()
    assert generate() == answers
    assert len(sandbox.books().batches) == 1


def test_the_answers_of_an_expired_batch_and_of_its_successor_are_adopted(sandbox):
    """Some requests are in both batches: the second one answered the rest of the first one."""
    sandbox.add_fault(BatchFault(kind="expire", value=3))
    answers = generate()
    assert len(sandbox.books().batches) == 2
    lose_ledger()
    assert generate() == answers
    assert len(sandbox.books().batches) == 2
    assert_billed_once(sandbox)


def test_a_run_that_died_during_the_adoption_is_continued(sandbox):
    """The first run adopted one of two batches; the next run adopts the other one before it submits."""
    sandbox.add_fault(BatchFault(kind="expire", value=3))
    answers = generate()
    lose_ledger()
    sandbox.add_fault(Fault(call="files.content", kind="status", status=401, skip=2))
    with pytest.raises(RunError):
        generate()
    assert generate() == answers
    assert len(sandbox.books().batches) == 2
    assert_billed_once(sandbox)


def test_a_batch_in_progress_is_adopted_and_waited_for(sandbox):
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    lose_ledger()
    sandbox.configure(in_progress_seconds=0.1)
    assert all(output["generations"] for output in generate())
    assert len(sandbox.books().batches) == 1
    assert_billed_once(sandbox)


def test_a_batch_in_progress_without_its_input_file_is_logged(sandbox, caplog):
    """The requests of the batch are unknown, so all requests are submitted again."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    [batch] = sandbox.books().batches
    delete_file(sandbox, batch["input_file_id"])
    lose_ledger()
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    assert "its input file is gone" in caplog.text
    sandbox.configure(in_progress_seconds=0.0)
    assert all(output["generations"] for output in generate())


def test_a_batch_that_ended_is_adopted_without_its_input_file(sandbox):
    """The result lines name the requests."""
    answers = generate()
    delete_file(sandbox, sandbox.books().batches[0]["input_file_id"])
    lose_ledger()
    assert generate() == answers
    assert len(sandbox.books().batches) == 1


def test_requests_whose_results_are_gone_are_submitted_again(sandbox):
    answers = generate()
    [batch] = sandbox.books().batches
    delete_file(sandbox, batch["output_file_id"])
    lose_ledger()
    assert generate() == answers
    assert len(sandbox.books().batches) == 2


def test_result_lines_of_unknown_requests_are_ignored(sandbox):
    sandbox.add_fault(ResultFault(kind="unknown", times=-1))
    answers = generate()
    lose_ledger()
    assert generate() == answers
    assert len(sandbox.books().batches) == 1


def test_the_files_of_an_adopted_batch_are_deleted_with_delete_files(sandbox):
    answers = generate()
    lose_ledger()
    assert generate(delete_files=True) == answers
    assert not sandbox.books().files


def test_batches_of_another_scope_are_not_adopted(sandbox, monkeypatch):
    """Another script submits the same requests for itself."""
    generate()
    lose_ledger()
    monkeypatch.setattr(sys, "argv", ["another.py"])
    generate()
    assert len(sandbox.books().batches) == 2


def test_without_reuse_nothing_is_adopted(sandbox):
    """`reuse_answers=False` submits again, on this machine and on any other."""
    generate()
    lose_ledger()
    generate(reuse_answers=False)
    assert len(sandbox.books().batches) == 2


def test_an_llm_without_reuse_does_not_keep_others_from_adopting(sandbox):
    """A later LLM of the same process that reuses answers searches the server."""
    answers = generate()
    lose_ledger()
    generate([[{"role": "user", "content": "Say another number."}]], reuse_answers=False)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)
    llm.load()
    assert llm.generate(QUESTIONS) == answers
    assert len(sandbox.books().batches) == 2


def test_the_run_after_an_adoption_needs_no_server(sandbox):
    """The ledger has every answer: neither batches nor files are requested."""
    answers = generate()
    lose_ledger()
    generate()
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=401, times=-1))
    sandbox.add_fault(Fault(call="files.content", kind="status", status=401, times=-1))
    assert generate() == answers
    assert (Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3").exists()
