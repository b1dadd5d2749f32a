"""Record of refused parameters, written beside the run."""

from __future__ import annotations

import threading

import anyio
import pytest

from distilabel_openai_batch.engine.refusals import BackgroundRefusals
from distilabel_openai_batch.errors import LedgerError


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_refusal_is_recorded_in_a_worker_thread_also_if_the_session_ends(ledger, monkeypatch, is_cancelled):
    threads = []
    write = ledger.refused_parameters.record

    def record(model: str, parameter: str) -> None:
        threads.append(threading.current_thread())
        write(model, parameter)

    monkeypatch.setattr(ledger.refused_parameters, "record", record)
    async with anyio.create_task_group() as task_group:
        BackgroundRefusals(ledger.refused_parameters, task_group).record("alias", "tools")
        assert threads == []
        if is_cancelled:
            task_group.cancel_scope.cancel()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert ledger.refused_parameters.load() == [("alias", "tools")]


async def test_a_ledger_that_cannot_be_written_does_not_end_the_run(ledger, monkeypatch):
    def refuse(model: str, parameter: str) -> None:
        raise LedgerError("full")

    monkeypatch.setattr(ledger.refused_parameters, "record", refuse)
    async with anyio.create_task_group() as task_group:
        refusals = BackgroundRefusals(ledger.refused_parameters, task_group)
        refusals.record("alias", "tools")
    assert refusals.load() == []
