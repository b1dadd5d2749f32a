"""Local work of a session, as opposed to waiting for the server.

While results are read, or requests are looked up in the ledger, further answers are about to reach their callers: a
flush would put the next round of calls into several jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio


class Activity:
    """Count of the local work in progress of a session."""

    def __init__(self) -> None:
        self._running = 0
        # Only awaited while work is in progress. `set` would need an event loop in anyio 4.4.
        self._idle = anyio.Event()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def is_busy(self) -> bool:
        """Return whether any local work is in progress."""
        return self._running > 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the context as local work."""
        if not self._running:
            self._idle = anyio.Event()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
                for callback in self._callbacks:
                    callback()

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call a function each time that the last local work ends."""
        self._callbacks.append(callback)

    async def wait_until_idle(self) -> None:
        """Wait until no local work is in progress."""
        while self._running:
            await self._idle.wait()
