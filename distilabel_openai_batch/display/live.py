"""A run's progress where it runs: bars in a terminal, a line in a notebook, and nothing anywhere else.

The steps of a pipeline run in processes of their own, side by side, and would draw over each other: their log tells.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from rich.console import Console

from distilabel_openai_batch.display.bars import Bar, Bars, counted

PROGRESS_ENV_NAME = "DISTILABEL_OPENAI_BATCH_PROGRESS"
"""The environment variable that, set to `0`, turns off what is drawn. Log lines are logging's to turn off."""

# One run at a time has the terminal.
_taken = threading.Lock()


class Display(Protocol):
    """Where a run's progress is shown."""

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Shows how jobs are now.

        Args:
            bars: one for each job.
            done: requests that are done with, in jobs or not.
            total: all there are.
        """

    def close(self, summary: str) -> None:
        """Leaves nothing but a line."""


def display(logger: logging.Logger) -> Display | None:
    """What shows the progress of a script or a notebook; `None` where nothing should.

    Nothing is drawn where `DISTILABEL_OPENAI_BATCH_PROGRESS` is `0`, where stderr is no terminal or one that cannot
    move its cursor, and in CI.

    Args:
        logger: whose lines are to stand above the bars.
    """
    if os.getenv(PROGRESS_ENV_NAME) == "0":
        return None
    if (ipython := sys.modules.get("IPython")) and hasattr(ipython.get_ipython(), "kernel"):
        # This process is a notebook's kernel.
        return InNotebook(ipython.display.display)
    if os.getenv("CI") or not (sys.stderr and sys.stderr.isatty()):
        return None
    console = Console(stderr=True)
    return InTerminal(console, logger) if console.is_terminal and not console.is_dumb_terminal else None


class InTerminal:
    """Bars as those of the command line's `watch`, which vanish in the end.

    Args:
        console: the terminal.
        logger: whose lines are to stand above the bars.
    """

    def __init__(self, console: Console, logger: logging.Logger) -> None:
        self._console = console
        self._logger = logger
        self._drawn = ExitStack()
        self._bars: Bars | None = None

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Draws them."""
        if self._bars is None:
            if not _taken.acquire(blocking=False):
                return
            self._drawn.callback(_taken.release)
            self._bars = self._drawn.enter_context(Bars(self._console, stays=False))
            self._drawn.enter_context(_above(self._logger))
        self._bars.draw(bars, done, total)

    def close(self, summary: str) -> None:
        """Erases them. The line is left out where the log has it."""
        was_drawn = self._bars is not None
        self._bars = None
        self._drawn.close()
        if was_drawn and not self._logger.isEnabledFor(logging.INFO):
            self._console.print(summary, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _above(logger: logging.Logger) -> Iterator[None]:
    """Has what is logged to the terminal written above the bars.

    rich puts something in the place of stdout and stderr that does so; handlers that were made before hold the real
    ones.
    """
    moved: list[tuple[logging.StreamHandler[Any], Any]] = []
    at: logging.Logger | None = logger
    while at:
        for handler in at.handlers:
            stream = getattr(handler, "stream", None)
            if isinstance(handler, logging.StreamHandler) and stream is not None:
                for now in (sys.stdout, sys.stderr):
                    if getattr(now, "rich_proxied_file", None) is stream:
                        moved.append((handler, stream))
                        handler.setStream(now)
        at = at.parent if at.propagate else None
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)


class InNotebook:
    """One line of plain text, updated in its place.

    rich would need widgets, and without them leaves a copy of its bars for each time that they move.

    Args:
        publish: IPython's own `display`.
    """

    def __init__(self, publish: Any) -> None:
        self._publish = publish
        self._handle: Any = None
        self._text = ""

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Says how many are done."""
        statuses = counted(bar.status for bar in bars)
        self._say(f"{done:,} of {total:,} requests{f'; jobs: {statuses}' if statuses else ''}")

    def close(self, summary: str) -> None:
        """Says how it ended."""
        if self._handle:
            self._say(summary)

    def _say(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        data = {"text/plain": text}
        if self._handle is None:
            self._handle = self._publish(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
