"""Summary of a pipeline's run: rows, numbers of each Task, the place of the dataset, and the next useful command."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table

from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT, TRUNCATED_ANSWER
from distilabel_openai_batch.display.command_lines import command_line
from distilabel_openai_batch.display.layout import fit_lines, markup
from distilabel_openai_batch.display.task_counts import TaskCounts, sum_counts
from distilabel_openai_batch.pricing.prices import Cost, format_cost
from distilabel_openai_batch.text import duration, plural, printable

# Packages of the extra `ui`.
_PACKAGES_OF_UI = ("jinja2", "starlette", "uvicorn", "vl_convert")

# Reasons that the summary names for each Task; `failures` lists all.
_REASONS_SHOWN = 3

# Columns that the summary has if any Task has such requests, with their headers.
_OPTIONAL_COLUMNS = {
    "cut": "cut",
    "retried": "retried",
    "reused": "reused",
    "synchronous": "synchronous",
    "in_jobs": "pending",
    "not_submitted": "not submitted",
}

# Width of the table outside a terminal, in characters.
_PLAIN_WIDTH = 120


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """Rows and numbers of a Task in a run.

    Attributes:
        name: the Task's name.
        rows_in, rows_out: number of rows that the Task received and returned.
        counts: numbers of its requests.
        scopes: names of its scopes on the command line.
        is_cached: whether the rows came from distilabel's cache; `counts` then has the failures of the run that made
            the rows, and nothing else.
    """

    name: str
    rows_in: int
    rows_out: int
    counts: TaskCounts
    scopes: tuple[str, ...] = ()
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Rows, Tasks and dataset of a run of a pipeline.

    Attributes:
        pipeline: the pipeline's name.
        rows_in: number of rows that the pipeline's generators made; `None` if they came from distilabel's cache.
        rows_out: number of rows of the dataset; `None` if the run ended before the dataset was complete.
        tasks: the Tasks with a client of this package.
        dataset: the directory of the dataset's files; empty without a dataset.
        ledger_dir: directory of the ledger that the user chose; `None` for the default directory.
    """

    pipeline: str
    rows_in: int | None
    rows_out: int | None
    tasks: Sequence[TaskSummary]
    dataset: str
    ledger_dir: str | None = None

    @property
    def rows(self) -> str:
        """Numbers of rows as a text."""
        rows_in = "" if self.rows_in is None else f"{plural(self.rows_in, 'row')} in, "
        return (
            f"{rows_in}{'the dataset is incomplete' if self.rows_out is None else f'{self.rows_out:,} in the dataset'}"
        )


def next_command(summary: RunSummary) -> tuple[str, str]:
    """Return the next useful command, and its purpose."""
    failed = [task for task in summary.tasks if task.counts.failed]
    has_open_jobs = any(task.counts.statuses for task in summary.tasks)
    if summary.rows_out is None and has_open_jobs:
        return _command("watch", summary), "follows the jobs; the same script, run again, continues"
    if summary.rows_out is None and not any(task.counts.jobs + task.counts.synchronous for task in summary.tasks):
        jobs = command_line("jobs", ledger_dir=summary.ledger_dir)
        return jobs, "lists the jobs of earlier runs; this run submitted none"
    if failed:
        purpose = "lists the failed requests with reasons"
        return _command("failures", summary, failed), purpose + (_warn(failed) if summary.rows_out is None else "")
    if has_open_jobs:
        return _command("watch", summary), "follows the jobs until they have ended"
    if summary.rows_out is None:
        return _command("jobs", summary), "lists the jobs; the same script, run again, uses their answers"
    if all(map(find_spec, _PACKAGES_OF_UI)):
        return _command("ui", summary), "shows jobs, rows and costs in a browser"
    return _command("jobs", summary), "lists the jobs with their costs"


def _warn(failed: Sequence[TaskSummary]) -> str:
    """Return the end of a sentence that warns of the bill of failed requests that are submitted again."""
    is_spent = any(code in task.counts.reasons for task in failed for code in (LENGTH_LIMIT, TRUNCATED_ANSWER))
    change = ": raise `max_new_tokens` first" if is_spent else ""
    return f"; the same script, run again, submits the failed requests again{change}"


def _command(name: str, summary: RunSummary, tasks: Sequence[TaskSummary] = ()) -> str:
    """Return the line of a command for the scopes of some Tasks, or of all Tasks; for all scopes if no name has them.

    A submission has a scope with its own name, which the name of the pipeline does not select.
    """
    # A Task without requests has no scope in the ledger.
    scopes = {scope for task in tasks or summary.tasks if task.counts.requests for scope in task.scopes}
    has_tasks_alone = all(scope.startswith(f"{summary.pipeline}/") for scope in scopes)
    if len(scopes) == 1 and (tasks or not has_tasks_alone):
        [scope] = scopes
    else:
        scope = summary.pipeline if scopes and has_tasks_alone else ""
    return command_line(name, scope, summary.ledger_dir)


def summary_lines(summary: RunSummary) -> list[str]:
    """Return the summary as lines of a log."""
    command, purpose = next_command(summary)
    return [
        f"📊 {summary.pipeline}: {summary.rows}.",
        *(f"📊 {_describe_task(task)}" for task in summary.tasks),
        *([f"📂 Dataset: {summary.dataset}"] if summary.dataset else []),
        f"→ `{command}` {purpose}.",
    ]


def _describe_task(task: TaskSummary) -> str:
    counts = task.counts
    optional = (
        f"{number:,} {name}"
        for name, number in (
            ("cut", counts.cut),
            ("retried", counts.retried),
            ("reused", counts.reused),
            ("synchronous", counts.synchronous),
            ("pending", counts.in_jobs),
            ("not submitted", counts.not_submitted),
        )
        if number
    )
    reasons = f" ({_list_reasons(counts)})" if counts.reasons else ""
    texts = format_cost(counts.cost)
    cost = f"; {texts.spent}, {texts.saved} saved" if counts.cost else ""
    if task.is_cached:
        return (
            f"{task.name}: {plural(task.rows_out, 'row')} from distilabel's cache, {counts.failed:,} failed{reasons}."
        )
    requests = ", ".join([f"{counts.failed:,} failed{reasons}", *optional])
    return (
        f"{task.name}: {task.rows_in:,} rows in, {task.rows_out:,} out; {counts.answered:,} of"
        f" {plural(counts.requests, 'request')} answered, {requests}; {plural(counts.jobs, 'job')};"
        f" {counts.tokens_in:,} tokens in, {counts.tokens_out:,} out{cost}; {duration(counts.seconds)}."
    )


def _list_reasons(counts: TaskCounts) -> str:
    reasons = list(counts.reasons.items())
    shown = [f"{count:,} × {reason}" for reason, count in reasons[:_REASONS_SHOWN]]
    more = sum(count for _, count in reasons[_REASONS_SHOWN:])
    return ", ".join([*shown, *([f"{more:,} × others"] if more else [])])


def print_summary(summary: RunSummary, console: Console) -> None:
    """Print the summary as a table, and the place and the command on lines that can be copied."""
    command, purpose = next_command(summary)
    failed = [task for task in summary.tasks if task.counts.reasons]
    console.print(f"\n[bold]{markup(summary.pipeline)}[/]: {summary.rows}", highlight=False, soft_wrap=True)
    console.print(_summary_table(summary, console.width))
    for task in failed:
        reasons = f"{markup(task.name)}: {markup(_list_reasons(task.counts))}"
        console.print(f"[red]Failed[/] in {reasons}", highlight=False, soft_wrap=True)
    if summary.dataset:
        console.print(f"Dataset: {markup(summary.dataset)}", highlight=False, soft_wrap=True)
    console.print(f"Next: [bold]{markup(command)}[/] {purpose}", highlight=False, soft_wrap=True)


def summary_text(summary: RunSummary) -> str:
    """Return the printed summary as plain text."""
    file = io.StringIO()
    print_summary(summary, Console(file=file, width=_PLAIN_WIDTH, force_terminal=False, force_jupyter=False))
    return printable("\n".join(line.rstrip() for line in file.getvalue().strip().splitlines()))


def _summary_table(summary: RunSummary, width: int) -> Table:
    total = sum_counts(task.counts for task in summary.tasks if not task.is_cached)
    optional = {name: header for name, header in _OPTIONAL_COLUMNS.items() if getattr(total, name)}
    costs = ("cost", "saved") if any(task.counts.cost for task in summary.tasks) else ()
    names = ("Task", "rows", "answered", "failed", *optional.values(), "jobs", "tokens", *costs, "time")
    blanks = [""] * (len(names) - 4)
    rows = [
        (markup(task.name), f"{task.rows_in:,} → {task.rows_out:,}", *_number_cells(task.counts, optional, bool(costs)))
        if not task.is_cached
        else (markup(task.name), f"{task.rows_out:,}", "cached", _failed_cell(task.counts), *blanks)
        for task in summary.tasks
    ]
    if len(rows) > 1:
        sums = ("all", "", *_number_cells(total, optional, bool(costs)))
        rows.append(tuple(cell and f"[bold]{cell}[/]" for cell in sums))
    droppable = ("synchronous", "retried", "tokens", "jobs", "saved", "cut", "time", "reused", "cost", "rows")
    return fit_lines(names, rows, rows, width, number_names=names[1:], droppable=droppable)


def _failed_cell(counts: TaskCounts) -> str:
    return f"[red]{counts.failed:,}[/]" if counts.failed else "0"


def _number_cells(counts: TaskCounts, optional: Iterable[str], has_costs: bool) -> list[str]:
    tokens = f"{counts.tokens_in:,} in, {counts.tokens_out:,} out"
    return [
        f"{counts.answered:,}/{counts.requests:,}",
        _failed_cell(counts),
        *(f"{getattr(counts, name):,}" for name in optional),
        f"{counts.jobs:,}",
        tokens,
        *(format_cost(Cost() if counts.is_unbilled else counts.cost)[:2] if has_costs else ()),
        duration(counts.seconds),
    ]
