"""Detection of a call that a working server answers with status 500 for minutes, so that a run need not wait for hours.

An outage fails every call, and passes. A fault of the server in one call (a file that it cannot read, a batch that it
cannot show) stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from distilabel_openai_batch.errors import ConnectionFailedError

LASTING_SECONDS = 300.0
"""Seconds for which one call fails with status 500 before the run ends, if other calls succeed meanwhile.

The time is longer than a restart of a server or of a gateway, and far shorter than `Patience.total`.
"""

_STATUS_CODE = 500

# Attempts within the seconds, at least: a server may ask for longer pauses than ours.
_MIN_ATTEMPTS = 3


class LastingFailureError(ConnectionFailedError):
    """Failure of one call for minutes, while the server answers other calls."""


class LastingFailure:
    """Detector of one call's lasting failure.

    Args:
        count_successes: returns the number of calls of this server that succeeded so far.
        probe: makes another call; returns whether the server answers it with success.

    Attributes:
        is_certain: whether the call fails lastingly, while the server works.
    """

    def __init__(self, count_successes: Callable[[], int], probe: Callable[[], Awaitable[bool]]) -> None:
        self._count_successes = count_successes
        self._probe = probe
        self._attempts = 0
        self._since = 0.0
        self._successes = 0
        self.is_certain = False

    async def note(self, status_code: int | None, now: float) -> None:
        """Note a failed attempt; any failure without status 500 begins anew.

        Args:
            status_code: the HTTP status code of the reply; `None` without a reply.
            now: the time of the attempt, in seconds of the monotonic clock.
        """
        if status_code != _STATUS_CODE:
            self._attempts = 0
            return
        if not self._attempts:
            self._since, self._successes = now, self._count_successes()
        self._attempts += 1
        if self._attempts >= _MIN_ATTEMPTS and now - self._since >= LASTING_SECONDS:
            self.is_certain = self._count_successes() > self._successes or await self._probe()
