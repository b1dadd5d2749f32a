"""Gate that closes when a run stops: no upload, creation or synchronous request begins after the stop."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class StopGate:
    """Gate in front of each call that submits requests.

    A session that stops still records its failures before its tasks are cancelled, so the tasks go on meanwhile.

    Args:
        is_stopped: whether the run stops.
    """

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped

    async def enter(self) -> None:
        """Return at once while the run goes on; afterwards wait until the session cancels the caller."""
        if self._is_stopped():
            await anyio.sleep_forever()


OPEN_GATE = StopGate(lambda: False)
"""Gate of a session that nothing stops."""
