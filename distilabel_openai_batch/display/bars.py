"""Progress bars of jobs, for the terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from distilabel_openai_batch.display.layout import coloured_status, markup
from distilabel_openai_batch.display.timings import job_timings
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.text import duration, plural, printable

# Hexadecimal digits that distinguish all batches on one terminal.
_ID_CHARACTERS = 12

# Terminal columns beside a bar's label: the bar, the counts, the status and the ETA.
_NUMBERS_COLUMNS = 58


def count_statuses(statuses: Iterable[str]) -> str:
    """Return the number of jobs with each status: `2 completed, 1 in_progress`."""
    return ", ".join(f"{count} {status}" for status, count in sorted(Counter(statuses).items()))


@dataclass(frozen=True, slots=True)
class Bar:
    """Progress of one job.

    Attributes:
        batch_id: the server's id of the batch.
        label: the job's scope; empty where all jobs belong to one scope.
        done: number of requests with an outcome.
        total: number of requests.
        status: the batch's status.
        has_ended: whether the job has ended.
        eta: estimated seconds until the job ends; `None` if unknown.
    """

    batch_id: str
    label: str
    done: int
    total: int
    status: str
    has_ended: bool
    eta: float | None


class Bars:
    """Progress bars, one for each job and one for all jobs; without a terminal, one line for each change.

    Args:
        console: receives the output.
        keeps_bars: whether the bars stay on the terminal after the end.
    """

    def __init__(self, console: Console, keeps_bars: bool = True) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TextColumn("ETA {task.fields[eta]}"),
            console=console,
            # The bars change only after a poll → no thread that refreshes them in between.
            auto_refresh=False,
            disable=not console.is_terminal,
            expand=True,
            transient=not keeps_bars,
            # stdout or stderr is a file or a pipe → rich must not move that output to the terminal.
            redirect_stdout=bool(sys.stdout and sys.stdout.isatty()),
            redirect_stderr=bool(sys.stderr and sys.stderr.isatty()),
        )
        self._task_ids: dict[str, TaskID] = {}
        self._last_line = ""

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, jobs: Sequence[JobEntry]) -> None:
        """Draw the bars of jobs as the ledger has them."""
        bars = [
            Bar(
                str(job.batch_id),
                job.scope.label,
                job.done,
                job.requests,
                job.status,
                job.has_ended,
                timing.eta,
            )
            for job, timing in zip(jobs, job_timings(jobs, time.time()), strict=True)
        ]
        self.draw(bars, sum(bar.done for bar in bars), sum(bar.total for bar in bars))

    def draw(self, bars: Sequence[Bar], done: int, total: int) -> None:
        """Draw bars.

        Args:
            bars: one bar for each job so far.
            done: number of requests with an outcome, in jobs or not.
            total: number of all requests.
        """
        if not self._console.is_terminal:
            self._print_changed_line(bars, done, total)
            return
        # The bar of all jobs stands first, since a terminal may have fewer lines than jobs. All end when the last ends.
        latest_eta = max((bar.eta for bar in bars if bar.eta is not None), default=None)
        status = f"{sum(bar.has_ended for bar in bars)} of {len(bars)} ended" if bars else ""
        self._draw_bar("", "[bold]all[/]", done, total, status, latest_eta)
        for bar in bars:
            self._draw_bar(bar.batch_id, self._title(bar), bar.done, bar.total, coloured_status(bar.status), bar.eta)
        self._progress.refresh()

    def _print_changed_line(self, bars: Sequence[Bar], done: int, total: int) -> None:
        line = f"{done:,} of {plural(total, 'request')}; {count_statuses(bar.status for bar in bars)}"
        if bars and line != self._last_line:
            self._last_line = line
            self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def _title(self, bar: Bar) -> str:
        """Return the end of a batch id and the label, cut to the columns beside the numbers.

        OpenAI's ids begin with the time of the creation, so only the ends of two ids differ.
        """
        batch_id = bar.batch_id
        short_id = batch_id if len(batch_id) <= _ID_CHARACTERS else f"…{batch_id[1 - _ID_CHARACTERS :]}"
        title = f"{short_id} {bar.label}".rstrip()
        width = max(_ID_CHARACTERS, self._console.width - _NUMBERS_COLUMNS)
        return markup(title if len(title) <= width else f"{title[: width - 1]}…")

    def _draw_bar(self, key: str, title: str, done: int, total: int, status: str, eta: float | None) -> None:
        fields = {"completed": done, "total": total, "status": status, "eta": duration(eta)}
        if key in self._task_ids:
            self._progress.update(self._task_ids[key], **fields)  # type: ignore[arg-type]
        else:
            self._task_ids[key] = self._progress.add_task(title, **fields)  # type: ignore[arg-type]
