"""Progress bars of jobs, for terminals and notebooks."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from distilabel_openai_batch.display.tables import _coloured, timings
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.text import duration

# So many hexadecimal digits tell apart whatever one terminal shows.
_ID_CHARACTERS = 12


# What progress needs beside a job's name: a bar, counts, status and ETA.
_NUMBERS_COLUMNS = 58


def counted(statuses: Iterable[str]) -> str:
    """How many jobs have each status: `2 completed, 1 in_progress`."""
    return ", ".join(f"{count} {status}" for status, count in sorted(Counter(statuses).items()))


@dataclass(frozen=True, slots=True)
class Bar:
    """A job's progress.

    Attributes:
        batch_id: the server's id of its batch.
        name: whose it is, where that says something.
        done: requests that it is done with.
        total: requests that it has.
        status: the batch's.
        ended: whether it has ended.
        eta: the seconds that are probably left.
    """

    batch_id: str
    name: str
    done: int
    total: int
    status: str
    ended: bool
    eta: float | None


class Bars:
    """Live progress, a bar for each job and one for all; a line for each change where there is no terminal.

    Args:
        console: where it is drawn.
        stays: whether the bars are left there in the end.
    """

    def __init__(self, console: Console, stays: bool = True) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TextColumn("ETA {task.fields[eta]}"),
            console=console,
            # It says something new when the server was asked, and not in between.
            auto_refresh=False,
            disable=not console.is_terminal,
            expand=True,
            transient=not stays,
            # What goes into a file or a pipe stays out of the terminal.
            redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
            redirect_stderr=bool(sys.stderr and sys.stderr.isatty()),
        )
        self._tasks: dict[str, TaskID] = {}
        self._told = ""

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, jobs: Sequence[JobEntry]) -> None:
        """Draws jobs as they are now."""
        bars = [
            Bar(str(job.batch_id), job.scope.label, _done(job), job.requests, job.status, job.has_ended, timing.eta)
            for job, timing in zip(jobs, timings(jobs, time.time()), strict=True)
        ]
        self.draw(bars, sum(bar.done for bar in bars), sum(bar.total for bar in bars))

    def draw(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Draws bars.

        Args:
            bars: of all jobs so far.
            done: requests that are done with.
            total: all there are.
        """
        if not self._console.is_terminal:
            told = f"{done:,} of {total:,} requests; {counted(bar.status for bar in bars)}"
            if bars and told != self._told:
                self._told = told
                self._console.print(told, markup=False, highlight=False, soft_wrap=True)
            return
        # The last one ends when all have. Above the others, which may be more than a terminal has lines.
        latest = max((bar.eta for bar in bars if bar.eta is not None), default=None)
        ended = sum(bar.ended for bar in bars)
        status = f"{ended} of {len(bars)} ended" if bars else ""
        self._draw("", "[bold]all[/]", done, total, status, latest)
        for bar in bars:
            self._draw(bar.batch_id, self._name(bar), bar.done, bar.total, _coloured(bar.status), bar.eta)
        self._progress.refresh()

    def _name(self, bar: Bar) -> str:
        """What the terminal has room for beside the numbers. OpenAI's ids begin with the time: their ends differ."""
        batch_id = bar.batch_id
        short = batch_id if len(batch_id) <= _ID_CHARACTERS else f"…{batch_id[1 - _ID_CHARACTERS :]}"
        name, room = f"{short} {bar.name}".rstrip(), max(_ID_CHARACTERS, self._console.width - _NUMBERS_COLUMNS)
        return escape(name if len(name) <= room else f"{name[: room - 1]}…")

    def _draw(self, key: str, name: str, done: int, total: int, status: str, eta: float | None) -> None:
        fields = {"completed": done, "total": total, "status": status, "eta": duration(eta)}
        if key in self._tasks:
            self._progress.update(self._tasks[key], **fields)  # type: ignore[arg-type]
        else:
            self._tasks[key] = self._progress.add_task(name, **fields)  # type: ignore[arg-type]


def _done(job: JobEntry) -> int:
    return min(job.requests, job.answered + job.failed)
