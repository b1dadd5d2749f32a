"""Tests of the local work of a session."""

from __future__ import annotations

import anyio

from distilabel_openai_batch.engine.activity import Activity


def test_an_activity_is_created_without_an_event_loop():
    assert not Activity().is_busy


async def test_waiters_go_on_when_the_last_work_ends():
    activity, events = Activity(), []
    activity.call_when_idle(lambda: events.append("idle"))

    async def wait() -> None:
        await activity.wait_until_idle()
        events.append("waited")

    async with anyio.create_task_group() as task_group:
        with activity.busy():
            task_group.start_soon(wait)
            with activity.busy():
                await anyio.wait_all_tasks_blocked()
            await anyio.wait_all_tasks_blocked()
            assert activity.is_busy
            assert not events
    assert events == ["idle", "waited"]
    assert not activity.is_busy


async def test_without_work_nothing_waits():
    await Activity().wait_until_idle()
