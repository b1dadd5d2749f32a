"""Bars of a pipeline's Tasks: one for each Task and one for all, in a terminal or in a notebook's box."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from distilabel_openai_batch.display.layout import markup
from distilabel_openai_batch.display.task_counts import TaskCounts, sum_counts
from distilabel_openai_batch.pricing.prices import format_cost
from distilabel_openai_batch.text import duration, plural, printable

# Terminal columns of a bar and of the counts beside it: the rest is for the name and for the details.
_BAR_COLUMNS = 12
_COUNTS_COLUMNS = 16
_NAME_COLUMNS = 28

# Lines of the log that a notebook's box shows below the bars. `pipeline.log` has all lines.
_LINES_IN_BOX = 40
_CHARACTERS_OF_BOX_BAR = 30

# A box is sent as a whole: a burst of log lines makes one update.
_SECONDS_BETWEEN_UPDATES = 0.2


def describe_counts(counts: TaskCounts, width: int) -> str:
    """Return the details beside a bar, as many as fit: time left, failures, jobs, cost, reused answers.

    Args:
        counts: the numbers of a Task.
        width: number of characters.
    """
    time_left = f"ETA {duration(counts.seconds_left)}" if counts.pending else duration(counts.seconds)
    candidates = [
        time_left if counts.requests else "waiting",
        f"{counts.failed:,} failed" if counts.failed else "",
        plural(counts.jobs, "job") if counts.jobs else "",
        format_cost(counts.cost).spent if counts.cost else "",
        f"{counts.reused:,} reused" if counts.reused else "",
    ]
    text = ""
    for candidate in filter(None, candidates):
        longer = f"{text} · {candidate}" if text else candidate
        if len(longer) > width:
            break
        text = longer
    return text


def _rows(tasks: Mapping[str, TaskCounts]) -> list[tuple[str, TaskCounts]]:
    """Return a row for each Task, and a row for all if there are several, without an estimate while any Task waits."""
    if len(tasks) < 2:
        return list(tasks.items())
    total = sum_counts(tasks.values())
    has_waiting = any(not counts.requests for counts in tasks.values())
    return [*tasks.items(), ("all Tasks", replace(total, seconds_left=None) if has_waiting else total)]


def _shorten(name: str, columns: int) -> str:
    return name if len(name) <= columns else f"{name[: columns - 1]}…"


class TerminalTaskBars:
    """Bars of Tasks in a terminal, below the log lines; erased at the end.

    Args:
        console: the terminal.
        handlers: log handlers, whose lines are written above the bars if they go to a terminal.
    """

    def __init__(self, console: Console, handlers: Sequence[logging.Handler]) -> None:
        self._console = console
        self._handlers = handlers
        self._resources = ExitStack()
        self._task_ids: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def show(self, tasks: Mapping[str, TaskCounts]) -> None:
        """Draw the bars.

        Args:
            tasks: the numbers of each Task, by the Task's name.
        """
        with self._no_log_lines():
            self._draw(tasks)

    def _draw(self, tasks: Mapping[str, TaskCounts]) -> None:
        if self._progress is None:
            self._progress = self._start()
        rows = _rows(tasks)
        name_columns = min(_NAME_COLUMNS, self._console.width // 4, max(len(name) for name, _ in rows))
        details_columns = self._console.width - _BAR_COLUMNS - _COUNTS_COLUMNS - name_columns - 4
        for name, counts in rows:
            title = markup(_shorten(name, name_columns))
            if name not in self._task_ids:
                self._task_ids[name] = self._progress.add_task("", total=None, details="")
            self._progress.update(
                self._task_ids[name],
                description=f"[bold]{title}[/]" if name not in tasks else title,
                completed=counts.done,
                total=counts.requests or None,
                details=("[red]" if counts.failed else "") + markup(describe_counts(counts, details_columns)),
            )
        self._progress.refresh()

    def _start(self) -> Progress:
        progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=_BAR_COLUMNS)),
            MofNCompleteColumn(table_column=Column(no_wrap=True, justify="right")),
            TextColumn("{task.fields[details]}", table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            expand=True,
            transient=True,
            # A process that is forked while the bars are shown would inherit rich's streams, and draw too.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._resources.enter_context(_write_above_bars(self._console, self._handlers))
        self._resources.callback(progress.stop)
        progress.start()
        # The pipeline may be killed at any time → never leave a terminal without a cursor.
        self._console.show_cursor(True)
        return progress

    def close(self) -> None:
        """Erase the bars."""
        with self._no_log_lines():
            self._resources.close()
        self._progress = None
        self._task_ids.clear()

    @contextmanager
    def _no_log_lines(self) -> Iterator[None]:
        """Hold the log's lines back: rich decides what a line erases before it writes the line."""
        with ExitStack() as locks:
            for handler in self._handlers:
                handler.acquire()
                locks.callback(handler.release)
            yield


@contextmanager
def _write_above_bars(console: Console, handlers: Sequence[logging.Handler]) -> Iterator[None]:
    """Make log handlers that write to a terminal write above the bars; rich's own handlers do so already."""
    redirected: list[tuple[logging.StreamHandler[Any], Any]] = []
    for handler in handlers:
        stream = getattr(handler, "stream", None)
        if isinstance(handler, logging.StreamHandler) and stream is not None and stream.isatty():
            redirected.append((handler, stream))
            handler.setStream(FileProxy(console, stream))
    try:
        yield
    finally:
        for handler, stream in redirected:
            handler.setStream(stream)


class _BoxHandler(logging.Handler):
    """Log handler that passes each line on."""

    def __init__(self, add_lines: Callable[[list[str]], None]) -> None:
        super().__init__()
        self._add_lines = add_lines

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a record's lines."""
        self._add_lines(self.format(record).splitlines())


class NotebookTaskBars:
    """Box of plain text below a notebook's cell, updated in place: bars of Tasks, and the latest log lines.

    distilabel's handler shows a box for each log line, so the box takes that handler's place.

    Args:
        publish: the function `IPython.display.display`.
        listener: distilabel's listener of the log; `None` if there is none.
    """

    def __init__(self, publish: Any, listener: Any) -> None:
        self._publish = publish
        self._handle: Any = None
        self._top: list[str] = []
        self._lines: deque[str] = deque(maxlen=_LINES_IN_BOX)
        self._text = ""
        self._updated_at = float("-inf")
        self._lock = threading.Lock()
        if listener is not None:
            kept = (handler for handler in listener.handlers if not _shows_boxes(handler))
            listener.handlers = (*kept, _BoxHandler(self._add_lines))

    def show(self, tasks: Mapping[str, TaskCounts]) -> None:
        """Show the bars.

        Args:
            tasks: the numbers of each Task, by the Task's name.
        """
        rows = _rows(tasks)
        columns = min(_NAME_COLUMNS, max(len(name) for name, _ in rows))
        self._top = [_format_row(_shorten(name, columns).ljust(columns), counts) for name, counts in rows]
        self._update()

    def close(self) -> None:
        """Show the latest bars and log lines."""
        self._update(is_last=True)

    def replace(self, summary: str) -> None:
        """Show a summary in the place of the bars."""
        self._top = summary.splitlines()
        self._update(is_last=True)

    def _add_lines(self, lines: list[str]) -> None:
        self._lines.extend(lines)
        self._update()

    def _update(self, is_last: bool = False) -> None:
        with self._lock:
            now = time.monotonic()
            text = "\n".join([*self._top, *([""] if self._top and self._lines else []), *self._lines])
            if text == self._text or (not is_last and now - self._updated_at < _SECONDS_BETWEEN_UPDATES):
                return
            self._text, self._updated_at = text, now
            data = {"text/plain": printable(text)}
            if self._handle is None:
                self._handle = self._publish(data, raw=True, display_id=True)
            else:
                self._handle.update(data, raw=True)


def _shows_boxes(handler: logging.Handler) -> bool:
    """Return whether a log handler is rich's in a notebook."""
    return bool(getattr(getattr(handler, "console", None), "is_jupyter", False))


def _format_row(name: str, counts: TaskCounts) -> str:
    filled = round(_CHARACTERS_OF_BOX_BAR * counts.done / counts.requests) if counts.requests else 0
    bar = "█" * filled + "░" * (_CHARACTERS_OF_BOX_BAR - filled)
    return f"{name} {bar} {counts.done:,}/{counts.requests:,} {describe_counts(counts, 80)}"
