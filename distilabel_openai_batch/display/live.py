"""Progress of a script in real time: bars in a terminal, one line in a notebook, nothing elsewhere.

The steps of a pipeline run in parallel processes, whose bars would overwrite each other: the pipeline's process draws
the bars of all its Tasks, see `run_display`.
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

from distilabel_openai_batch.display.bars import Bar, Bars, count_statuses
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.text import plural, printable

PROGRESS_ENV_NAME = "DISTILABEL_OPENAI_BATCH_PROGRESS"
"""Environment variable whose value `0` turns off bars and notebook lines. The log's level controls log lines."""

PAUSE_ENV_NAME = "DISTILABEL_OPENAI_BATCH_PAUSE"
"""Environment variable with the seconds that a submission pauses after a warning; `0` for no pause."""

# Seconds in which a user reads two lines of a warning and presses Ctrl+C.
_DEFAULT_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 3_600.0

# One run at a time draws in the terminal.
_terminal_lock = threading.Lock()


class Display(Protocol):
    """Place that shows the progress of a run."""

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Show the current progress.

        Args:
            bars: one bar for each job.
            done: number of requests with an outcome, in jobs or not.
            total: number of all requests.
        """

    def close(self, summary: str) -> None:
        """Replace the progress by a summary of one line."""


def choose_display(logger: logging.Logger) -> Display | None:
    """Return the display of a script or a notebook.

    Args:
        logger: a logger whose lines appear above the bars.

    Returns:
        `None` if `DISTILABEL_OPENAI_BATCH_PROGRESS` is `0`, in CI, and if stderr is no terminal or a terminal that
        cannot move its cursor.
    """
    if os.getenv(PROGRESS_ENV_NAME) == "0":
        return None
    # IPython's shell has a kernel → this process is the kernel of a notebook.
    if (ipython := sys.modules.get("IPython")) and hasattr(ipython.get_ipython(), "kernel"):
        return NotebookDisplay(ipython.display.display)
    if os.getenv("CI") or not (sys.stderr and sys.stderr.isatty()):
        return None
    console = Console(stderr=True)
    return TerminalDisplay(console, logger) if console.is_terminal and not console.is_dumb_terminal else None


def pause_seconds() -> float:
    """Return the seconds that a submission pauses after a warning.

    Returns:
        The number in `DISTILABEL_OPENAI_BATCH_PAUSE`; else 10 in a terminal whose user can press Ctrl+C, and 0 in CI
        and everywhere else.

    Raises:
        InvalidSettingError: the environment variable holds no number of seconds.
    """
    if (text := os.getenv(PAUSE_ENV_NAME)) is not None:
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= _LONGEST_PAUSE_SECONDS:
            raise InvalidSettingError(
                f"{PAUSE_ENV_NAME} has to be a number of seconds from 0 to {_LONGEST_PAUSE_SECONDS:,.0f}, not {text!r}."
            )
        return seconds
    is_terminal = all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr))
    return _DEFAULT_PAUSE_SECONDS if is_terminal and not os.getenv("CI") else 0.0


def print_notice(text: str, logger: logging.Logger) -> None:
    """Print a line of a script without a display on stderr, unless the log shows the line or the display is off.

    Args:
        text: the line.
        logger: the logger that receives the line too, at level `INFO`.
    """
    if sys.stderr and os.getenv(PROGRESS_ENV_NAME) != "0" and not logger.isEnabledFor(logging.INFO):
        print(printable(text), file=sys.stderr)


class TerminalDisplay:
    """Bars like those of the command `watch`, erased at the end.

    Args:
        console: the terminal.
        logger: a logger whose lines appear above the bars.
    """

    def __init__(self, console: Console, logger: logging.Logger) -> None:
        self._console = console
        self._logger = logger
        self._resources = ExitStack()
        self._bars: Bars | None = None

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Draw the bars, unless another run draws in the terminal."""
        if self._bars is None:
            if not _terminal_lock.acquire(blocking=False):
                return
            self._resources.callback(_terminal_lock.release)
            self._bars = self._resources.enter_context(Bars(self._console, keeps_bars=False))
            self._resources.enter_context(_log_above_bars(self._logger))
        self._bars.draw(bars, done, total)

    def close(self, summary: str) -> None:
        """Erase the bars, and print the summary unless the log contains that line."""
        was_drawn = self._bars is not None
        self._bars = None
        self._resources.close()
        if was_drawn and not self._logger.isEnabledFor(logging.INFO):
            self._console.print(printable(summary), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _log_above_bars(logger: logging.Logger) -> Iterator[None]:
    """Redirect log handlers to rich's stdout and stderr, which write above the bars.

    Handlers that were created before the bars hold the real streams.
    """
    redirected: list[tuple[logging.StreamHandler[Any], Any]] = []
    ancestor: logging.Logger | None = logger
    while ancestor:
        for handler in ancestor.handlers:
            stream = getattr(handler, "stream", None)
            if isinstance(handler, logging.StreamHandler) and stream is not None:
                for proxy in (sys.stdout, sys.stderr):
                    if getattr(proxy, "rich_proxied_file", None) is stream:
                        redirected.append((handler, stream))
                        handler.setStream(proxy)
        ancestor = ancestor.parent if ancestor.propagate else None
    try:
        yield
    finally:
        for handler, stream in redirected:
            handler.setStream(stream)


class NotebookDisplay:
    """Display of one line of plain text below a notebook's cell, updated in place.

    rich would need widgets: without widgets rich leaves a copy of the bars for each change.

    Args:
        publish: the function `IPython.display.display`.
    """

    def __init__(self, publish: Any) -> None:
        self._publish = publish
        self._handle: Any = None
        self._text = ""

    def show(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Show the number of requests with an outcome, and the number of jobs with each status."""
        statuses = count_statuses(bar.status for bar in bars)
        self._update(f"{done:,} of {plural(total, 'request')}{f'; jobs: {statuses}' if statuses else ''}")

    def close(self, summary: str) -> None:
        """Replace the line by the summary, if there is a line."""
        if self._handle:
            self._update(summary)

    def _update(self, text: str) -> None:
        if text == self._text:
            return
        self._text = text
        data = {"text/plain": printable(text)}
        if self._handle is None:
            self._handle = self._publish(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
