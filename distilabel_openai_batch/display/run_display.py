"""Display of a pipeline's run: bars of its Tasks while it runs, and a summary at the end. No error of it ends a run."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

from rich.console import Console

from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME
from distilabel_openai_batch.display.summary import RunSummary, print_summary, summary_lines, summary_text
from distilabel_openai_batch.display.task_bars import NotebookTaskBars, TerminalTaskBars
from distilabel_openai_batch.display.task_counts import TaskCounts

Method = TypeVar("Method", bound=Callable[..., None])


class TaskBars(Protocol):
    """Place that shows the progress of a pipeline's Tasks."""

    def show(self, tasks: Mapping[str, TaskCounts]) -> None:
        """Show the numbers of each Task, by the Task's name."""

    def close(self) -> None:
        """End the display of the bars."""


def _never_raising(method: Method) -> Method:
    """Make a method of `RunDisplay` drop the display at its first error, which is logged at the level `DEBUG`."""

    @functools.wraps(method)
    def call(self: RunDisplay, *args: Any) -> None:
        if self.is_broken:
            return
        try:
            method(self, *args)
        except Exception:
            self.is_broken = True
            self.logger.debug("The display of the run failed, and is turned off.", exc_info=True)
            self.drop_bars()

    return cast(Method, call)


class RunDisplay:
    """Bars of a pipeline's Tasks, and the summary of the run.

    Attributes:
        is_broken: whether an error has turned the display off.
        logger: receives the summary where there is no terminal and no notebook.

    Args:
        tasks: names of the pipeline's Tasks, in the order of the bars.
        logger: see above.
    """

    def __init__(self, tasks: Sequence[str], logger: logging.Logger) -> None:
        self.is_broken = False
        self.logger = logger
        self._counts = {name: TaskCounts() for name in tasks}
        self._bars: TaskBars | None = None
        self._console: Console | None = None
        self._is_started = False

    @_never_raising
    def attach(self, listener: Any) -> None:
        """Choose the place of the display, before the first log line.

        Args:
            listener: distilabel's listener of the log, whose handlers write in the same place.
        """
        if os.getenv(PROGRESS_ENV_NAME) == "0":
            return
        ipython = sys.modules.get("IPython")
        # IPython's shell has a kernel → this process is the kernel of a notebook.
        if ipython and hasattr(ipython.get_ipython(), "kernel"):
            self._bars = NotebookTaskBars(ipython.display.display, listener)
            return
        handlers = list(getattr(listener, "handlers", ()))
        self._console = None if os.getenv("CI") else _find_terminal(handlers)
        if self._console:
            self._bars = TerminalTaskBars(self._console, handlers)

    @_never_raising
    def start(self) -> None:
        """Show the bars, when the steps' processes have started: a process inherits the state of a console."""
        self._is_started = True
        if self._bars and self._counts:
            self._bars.show(self._counts)

    @_never_raising
    def update(self, task: str, counts: TaskCounts) -> None:
        """Show new numbers of a Task."""
        self._counts[task] = counts
        if self._bars and self._is_started:
            self._bars.show(self._counts)

    @_never_raising
    def close(self) -> None:
        """End the bars."""
        self._is_started = False
        if self._bars:
            self._bars.close()

    def drop_bars(self) -> None:
        """End the bars after an error, so that log handlers no longer write through the bars' console."""
        bars, self._bars = self._bars, None
        if bars:
            with suppress(Exception):
                bars.close()

    @_never_raising
    def log_summary(self, make_summary: Callable[[], RunSummary]) -> None:
        """Log the summary, if it will be shown in no terminal and in no notebook."""
        if not self._bars:
            for line in summary_lines(make_summary()):
                self.logger.info(line)

    @_never_raising
    def show_summary(self, make_summary: Callable[[], RunSummary]) -> None:
        """Show the summary in a terminal or in a notebook's box."""
        if isinstance(self._bars, NotebookTaskBars):
            self._bars.replace(summary_text(make_summary()))
        elif self._console:
            print_summary(make_summary(), self._console)


def _find_terminal(handlers: Sequence[logging.Handler]) -> Console | None:
    """Return the console of distilabel's log handler if it is a terminal, else stderr's; `None` without a terminal.

    The log and the bars share a console, so that log lines appear above the bars.
    """
    consoles = [console for handler in handlers if (console := getattr(handler, "console", None))]
    if sys.stderr and sys.stderr.isatty():
        consoles.append(Console(stderr=True))
    return next((console for console in consoles if console.is_terminal and not console.is_dumb_terminal), None)
