"""Wake-up of waiting runs: a program that knows of an ended batch lets each run on this machine poll at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

_FILE_NAME = "wake"


def wake_runs(ledger_dir: Path) -> None:
    """Let each run that uses a ledger poll its jobs now, by a new time of a file beside the ledger.

    Args:
        ledger_dir: the directory of the ledger, which exists.

    Raises:
        OSError: the file cannot be written.
    """
    path = ledger_dir / _FILE_NAME
    path.touch(mode=0o600)


class Wake:
    """Pauses of a session that end early when the session is woken.

    Args:
        ledger_dir: the directory of the ledger.
    """

    def __init__(self, ledger_dir: Path) -> None:
        self._path = ledger_dir / _FILE_NAME
        self._seen = self._changed_at()
        self._pauses: set[anyio.CancelScope] = set()

    async def pause(self, seconds: float, sleep: Callable[[float], Awaitable[None]] = anyio.sleep) -> None:
        """Sleep for a number of seconds, or until the session is woken.

        Args:
            seconds: the longest time.
            sleep: sleeps for a number of seconds.
        """
        with anyio.CancelScope() as scope:
            self._pauses.add(scope)
            try:
                await sleep(seconds)
            finally:
                self._pauses.discard(scope)

    def check(self) -> None:
        """End all pauses if the file has changed since the last check."""
        changed_at = self._changed_at()
        if changed_at != self._seen:
            self._seen = changed_at
            for scope in list(self._pauses):
                scope.cancel()

    def _changed_at(self) -> int:
        """Return the time of the last change, in nanoseconds; 0 if nothing ever woke a run."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0
