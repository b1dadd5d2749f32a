"""Jobs that the ledger does not know are found on the server, and what they answered is not bought again."""

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
pytestmark = pytest.mark.usefixtures("quick_retries")


def ask(questions=QUESTIONS, **fields):
    """What a process is given that begins now."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def forget():
    """The ledger is lost."""
    shutil.rmtree(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])


def delete_file(sandbox, file_id: str):
    headers = {"Authorization": f"Bearer {API_KEY}"}
    httpx.delete(f"{sandbox.base_url}/files/{file_id}", headers=headers).raise_for_status()


def assert_bought_once(sandbox):
    assert set(sandbox.books().billed.values()) == {1}


def test_a_job_that_has_ended(sandbox):
    """Its answers are there, though nobody waited for it."""
    answers = ask()
    forget()
    assert ask() == answers
    assert len(sandbox.books().batches) == 1


def test_a_request_in_two_jobs(sandbox):
    """The first one expired, the second one answered what it did not: both are taken."""
    sandbox.add_fault(BatchFault(kind="expire", value=3))
    answers = ask()
    assert len(sandbox.books().batches) == 2
    forget()
    assert ask() == answers
    assert len(sandbox.books().batches) == 2
    assert_bought_once(sandbox)


def test_killed_in_the_middle(sandbox):
    """Of two jobs one was adopted when it died: the next run adopts the other before it buys."""
    sandbox.add_fault(BatchFault(kind="expire", value=3))
    answers = ask()
    forget()
    sandbox.add_fault(Fault(call="files.content", kind="status", status=401, skip=2))
    with pytest.raises(RunError):
        ask()
    assert ask() == answers
    assert len(sandbox.books().batches) == 2
    assert_bought_once(sandbox)


def test_a_job_under_way(sandbox):
    """It is waited for."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        ask(wait=False)
    forget()
    sandbox.configure(in_progress_seconds=0.1)
    assert all(output["generations"] for output in ask())
    assert len(sandbox.books().batches) == 1
    assert_bought_once(sandbox)


def test_a_job_under_way_whose_input_file_is_gone(sandbox, caplog):
    """Nobody can know what it asks: that is said, and the answers are there all the same."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        ask(wait=False)
    [batch] = sandbox.books().batches
    delete_file(sandbox, batch["input_file_id"])
    forget()
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="batch_"):
        ask(wait=False)
    assert "its input file is gone" in caplog.text
    sandbox.configure(in_progress_seconds=0.0)
    assert all(output["generations"] for output in ask())


def test_a_job_that_has_ended_whose_input_file_is_gone(sandbox):
    """Its results say what it answered."""
    answers = ask()
    delete_file(sandbox, sandbox.books().batches[0]["input_file_id"])
    forget()
    assert ask() == answers
    assert len(sandbox.books().batches) == 1


def test_a_job_whose_results_are_gone(sandbox):
    """It is bought again, there is no other way."""
    answers = ask()
    [batch] = sandbox.books().batches
    delete_file(sandbox, batch["output_file_id"])
    forget()
    assert ask() == answers
    assert len(sandbox.books().batches) == 2


def test_lines_that_nobody_asked_for(sandbox):
    """They are not taken for answers of the scope."""
    sandbox.add_fault(ResultFault(kind="unknown", times=-1))
    answers = ask()
    forget()
    assert ask() == answers
    assert len(sandbox.books().batches) == 1


def test_its_files_are_deleted_where_that_is_wished(sandbox):
    """As those of any other job."""
    answers = ask()
    forget()
    assert ask(delete_files=True) == answers
    assert not sandbox.books().files


def test_another_tasks_jobs_are_left_alone(sandbox, monkeypatch):
    """Another script, or step, may ask the same question of its own."""
    ask()
    forget()
    monkeypatch.setattr(sys, "argv", ["another.py"])
    ask()
    assert len(sandbox.books().batches) == 2


def test_answers_that_are_not_to_be_used_again(sandbox):
    """`reuse_answers=False` asks anew, here and on another machine."""
    ask()
    forget()
    ask(reuse_answers=False)
    assert len(sandbox.books().batches) == 2


def test_who_does_not_reuse_answers_does_not_look_for_the_others(sandbox):
    """An LLM of the same process that does reuse them finds its jobs afterwards."""
    answers = ask()
    forget()
    ask([[{"role": "user", "content": "Say another number."}]], reuse_answers=False)
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)
    llm.load()
    assert llm.generate(QUESTIONS) == answers
    assert len(sandbox.books().batches) == 2


def test_the_ledger_of_an_adopting_run_is_whole(sandbox):
    """The run after it asks neither for the batches nor for their files."""
    answers = ask()
    forget()
    ask()
    sandbox.add_fault(Fault(call="batches.list", kind="status", status=401, times=-1))
    sandbox.add_fault(Fault(call="files.content", kind="status", status=401, times=-1))
    assert ask() == answers
    assert (Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]) / "ledger.sqlite3").exists()
