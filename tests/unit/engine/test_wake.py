"""Wake-up of sessions that pause."""

from __future__ import annotations

import os

import anyio
import pytest

from distilabel_openai_batch.engine.wake import Wake, wake_runs


@pytest.mark.parametrize("was_woken_before", [False, True])
async def test_a_pause_ends_when_the_session_is_woken(tmp_path, was_woken_before):
    """An earlier call wakes no later pause."""
    if was_woken_before:
        wake_runs(tmp_path)
        os.utime(tmp_path / "wake", (1, 1))
    wake, ended = Wake(tmp_path), []

    async def pause() -> None:
        await wake.pause(600.0)
        ended.append(True)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as task_group:
            task_group.start_soon(pause)
            await anyio.wait_all_tasks_blocked()
            wake.check()
            await anyio.wait_all_tasks_blocked()
            assert ended == []
            wake_runs(tmp_path)
            wake.check()
    assert ended == [True]


async def test_a_pause_ends_after_its_time(tmp_path):
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    await Wake(tmp_path).pause(7.0, sleep)
    assert pauses == [7.0]


async def test_a_cancelled_pause_stays_cancelled(tmp_path):
    """A run that ends is not kept by its pauses."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await Wake(tmp_path).pause(600.0)
    assert scope.cancelled_caught


def test_a_missing_ledger_cannot_be_woken(tmp_path):
    with pytest.raises(OSError, match="none"):
        wake_runs(tmp_path / "none")
