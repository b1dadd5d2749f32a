"""Batches that end with counts before their file ids appear."""

from __future__ import annotations

import logging

import anyio
import pytest
from typer.testing import CliRunner

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api import client
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure
from tests.support.environment import load_as_new_process

pytestmark = pytest.mark.usefixtures("quick_retries", "small_packs")

INPUTS = [[{"role": "user", "content": f"Say number {number}."}] for number in range(60)]


def generate(**fields) -> list[str | None]:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(INPUTS)]


@pytest.fixture
def patient(monkeypatch):
    """Wait for file ids as long as a test may take."""
    monkeypatch.setattr(client, "FILE_IDS_SECONDS", 30.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("looks", [1, 5])
def test_late_file_ids_cost_no_answer(sandbox, looks):
    sandbox.add_fault(BatchFault(kind="late_files", looks=looks))
    assert None not in generate()
    assert sorted(sandbox.books().billed.values()) == [1] * 60
    assert len(sandbox.books().batches) == 1


@pytest.mark.usefixtures("patient")
def test_late_error_file_keeps_the_reason_of_a_failure(sandbox, caplog):
    sandbox.configure(failures=[RequestFailure(contains="number 7.", message="No sevens.")])
    sandbox.add_fault(BatchFault(kind="late_files", looks=2))
    with caplog.at_level(logging.WARNING):
        generations = generate()
    assert [index for index, text in enumerate(generations) if text is None] == [7]
    assert "No sevens." in caplog.text
    assert len(sandbox.books().batches) == 1


@pytest.mark.usefixtures("patient")
def test_adopted_batch_waits_for_its_file_ids(sandbox, tmp_path):
    """Another machine has another ledger, and finds the batch on the server."""
    sandbox.add_fault(BatchFault(kind="late_files", looks=3))
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    anyio.run(anyio.sleep, 0.5)
    assert None not in generate(ledger_dir=str(tmp_path / "another"))
    assert sorted(sandbox.books().billed.values()) == [1] * 60


@pytest.mark.usefixtures("patient")
def test_adopt_command_waits_for_file_ids(sandbox, tmp_path):
    sandbox.add_fault(BatchFault(kind="late_files", looks=3))
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    anyio.run(anyio.sleep, 0.5)
    [batch] = sandbox.books().batches
    command = ["adopt", batch["id"], "elsewhere", "--base-url", sandbox.base_url, "--ledger-dir", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "60" in result.output


def test_results_that_never_appear_are_submitted_again_with_a_warning(sandbox, caplog):
    sandbox.add_fault(BatchFault(kind="no_files"))
    with caplog.at_level(logging.WARNING):
        assert None not in generate()
    first, second = sandbox.books().batches
    assert f"Batch {first['id']} counts 60 answers that its files do not contain." in caplog.text
    assert second["request_counts"]["completed"] == 60
