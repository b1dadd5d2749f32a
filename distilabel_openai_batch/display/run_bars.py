"""Bars of a run, built from the batches that the engine reports."""

from __future__ import annotations

import time

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.display.bars import Bar
from distilabel_openai_batch.display.live import Display
from distilabel_openai_batch.display.timings import estimate_seconds_left

# Synchronous requests may end many times a second: at most ten drawings a second follow them.
_SECONDS_BETWEEN_DRAWINGS = 0.1


class RunBars:
    """Bars of one run on a display.

    Args:
        display: shows the bars.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._bars: dict[str, Bar] = {}
        self._started: dict[str, float] = {}
        self._drawn_at = float("-inf")

    def update(self, batch: Batch, requests: int | None = None, is_collected: bool = False) -> None:
        """Update the bar of a batch.

        Args:
            batch: the batch.
            requests: the number of requests in the batch; `None` keeps the number of the last update.
            is_collected: whether the results are downloaded.
        """
        now = time.monotonic()
        started = self._started.setdefault(batch.id, now)
        previous = self._bars.get(batch.id)
        total = requests if requests is not None else previous.total if previous else 0
        done = total if is_collected else min(total, batch.completed + batch.failed)
        has_ended = batch.has_ended or is_collected
        eta = None if has_ended else estimate_seconds_left(now - started, done, total)
        self._bars[batch.id] = Bar(batch.id, "", done, total, batch.status, has_ended, eta)

    def is_due(self) -> bool:
        """Return whether the last drawing is a tenth of a second old."""
        return time.monotonic() - self._drawn_at >= _SECONDS_BETWEEN_DRAWINGS

    def draw(self, done: int, total: int) -> None:
        """Draw all bars.

        Args:
            done: number of requests with an outcome, in jobs or not.
            total: number of all requests.
        """
        self._drawn_at = time.monotonic()
        self._display.show(list(self._bars.values()), done, total)

    def close(self, summary: str) -> None:
        """Replace the bars by a summary of one line."""
        self._display.close(summary)
