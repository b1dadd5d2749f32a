"""A clock for tests that wait."""

from __future__ import annotations

import anyio.lowlevel


class FakeClock:
    """Clock that advances only while a task sleeps.

    Attributes:
        now: the time, in seconds.
    """

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await anyio.lowlevel.checkpoint()
