"""Rows without a generation: end the run, or warn, before the next Task is billed for `None`s.

distilabel passes the `None` of a failed row to the next Task, which formats the text `None` into its prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.display.advice import RUN_AGAIN, next_step
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.errors import NoGenerationsError
from distilabel_openai_batch.text import plural

MIN_ROWS = 10
"""Number of rows without any generation from which on a run ends; fewer rows may be a trial, and cost little."""

_MIN_PAUSE_SHARE = 0.1
"""Share of rows without an input from which on a submission pauses: a few failed rows are no reason to stop a run."""

_GO_ON = "`stop_without_answers=False` goes on."


class AnswerGuard:
    """The rows of a Task that wait for the Task's first generation, if another Task follows.

    Args:
        step: the Task's step.
        client: the client of the step, see `clients.batch_client`.
    """

    def __init__(self, step: Any, client: Any) -> None:
        self._step = step
        self._tasks_after: Sequence[str] = getattr(client, "tasks_after", ())
        self._ends_run: bool = getattr(client, "stop_without_answers", False)
        self._retry = replace(RUN_AGAIN, retries_cut=getattr(client, "on_truncated", None) == "retry")
        self._has_generation = not self._tasks_after
        self._rows = self._rows_warned = 0
        self._first_failure: Failure | None = None

    @property
    def holds_rows(self) -> bool:
        """State of the finished rows: `True` while another Task follows, and no row has a generation."""
        return not self._has_generation

    def add(self, log: CallLog, rows: int) -> None:
        """Note the outcomes of a row group.

        Args:
            log: the calls of the group.
            rows: number of its rows. A group without a call counts neither way.
        """
        if self._has_generation or not log.calls:
            return
        if log.has_generation is None:
            self._has_generation = any(type(outcome) is Answer for calls in log.calls for outcome in calls)
        else:
            self._has_generation = log.has_generation
        if not self._has_generation:
            self._rows += rows
            self._first_failure = self._first_failure or next(
                (outcome for outcome in log.outcomes if isinstance(outcome, Failure)), None
            )

    def check(self) -> None:
        """Let the rows go on with a warning, or end the run; no group of the Task is in progress.

        Raises:
            NoGenerationsError: ten or more rows have no generation, and no row has one.
        """
        if self._has_generation or self._rows == self._rows_warned:
            return
        self._rows_warned = self._rows
        failure, after = self._first_failure, self._tasks_after[0]
        reason = (
            f" {str(failure).rstrip('.')}. → {next_step(failure, failure.custom_id, self._retry)}" if failure else ""
        )
        text = f"None of {plural(self._rows, 'row')} of step '{self._step.name}' has a generation.{reason}"
        if self._ends_run and self._rows >= MIN_ROWS:
            raise NoGenerationsError(f"{text} Step '{after}' was not started: its rows would be `None`. {_GO_ON}")
        self._step._logger.warning(f"⚠️ {text} Step '{after}' is billed for these rows, whose inputs are `None`.")


class MissingInputs:
    """Count of the rows that a Task receives with `None` in a column that the Task requires.

    Args:
        step: the Task's step.
        client: the client of the step. A column that an earlier Task or a step behind that Task made holds `None` for a
            failure; in any other column `None` may be a value.
    """

    def __init__(self, step: Any, client: Any) -> None:
        self._step = step
        self._columns = [name for name, is_required in step.get_inputs().items() if is_required]
        self._answer_columns: Collection[str] = getattr(client, "answer_columns", ())
        self._ends_run: bool = getattr(client, "stop_without_answers", False)
        self._rows = 0
        self._rows_without_answers = 0
        self._missing: Counter[str] = Counter()
        self._rows_missing = 0
        self._rows_reported = 0
        self._has_paused = False

    def add(self, group: tuple[list[dict[str, Any]], ...]) -> None:
        """Count the rows of a row group.

        Args:
            group: the rows of each predecessor.
        """
        columns = self._columns
        for rows in group:
            self._rows += len(rows)
            for row in rows:
                if any(_has_none(row.get(column, "")) for column in columns):
                    self._add_missing(row)

    def _add_missing(self, row: dict[str, Any]) -> None:
        self._rows_missing += 1
        self._missing.update(name for name in self._columns if _has_none(row.get(name, "")))
        if any(_is_none(row.get(name, "")) for name in self._columns if name in self._answer_columns):
            self._rows_without_answers += 1

    def check(self) -> str:
        """Warn of the rows that lack an input, before their requests are submitted.

        Returns:
            The reason of a pause, if failures of earlier steps left a tenth of the rows without an input; else, and
            at each further call, an empty text.

        Raises:
            NoGenerationsError: each of ten or more rows lacks an answer of an earlier step.
        """
        if self._rows_missing == self._rows_reported:
            return ""
        self._rows_reported = self._rows_missing
        names = ", ".join(f"`{name}`" for name in self._missing)
        text = (
            f"{self._rows_missing:,} of {plural(self._rows, 'row')} of step '{self._step.name}' have `None` in {names}"
        )
        if self._ends_run and self._rows_without_answers == self._rows >= MIN_ROWS:
            raise NoGenerationsError(f"{text}: no earlier answer is usable, and nothing was submitted. {_GO_ON}")
        self._step._logger.warning(
            f"⚠️ {text}: their requests are submitted and billed with `None` in the prompt. To leave such rows out, drop"
            " them in a step before."
        )
        is_many = self._rows_missing >= _MIN_PAUSE_SHARE * self._rows
        if self._has_paused or not is_many or self._missing.keys().isdisjoint(self._answer_columns):
            return ""
        self._has_paused = True
        return text


def _has_none(value: object) -> bool:
    return value is None or (isinstance(value, list) and any(item is None for item in value))


def _is_none(value: object) -> bool:
    return value is None or (isinstance(value, list) and bool(value) and all(item is None for item in value))
