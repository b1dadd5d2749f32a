"""Build the failure column: a cell for each row that says why the row has no answer. Touches nothing of distilabel.

A failure is known where an answer is read, and rows are made by Tasks that know nothing of failures. A failure finds
its row in one of two ways:

1. Most Tasks pass each output of the LLM to distilabel's `_format_outputs`: `AnnotatedOutput` carries the failures
   there, a failure for each generation (`output_cells`).
2. For other Tasks the outcomes of a row group's calls are matched with the group's rows by position, if there are as
   many outcomes as rows and each row still has its input columns (`match_failures`). Otherwise each row without an
   answer gets a message about the whole group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from distilabel.constants import DISTILABEL_METADATA_KEY

from distilabel_openai_batch.api.failure_codes import ROW_GROUP_LOST
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.text import plural

Row = dict[str, Any]
Cell = dict[str, Any] | None


class AnnotatedOutput(dict[str, Any]):
    """An output of an LLM for one input, with the failures and the reasoning of its generations.

    Attributes:
        failures: the reason for each generation that is `None`; `None` for the others.
        reasoning: the cell of the reasoning column for each generation, see `reasoning_columns`.
    """

    failures: Sequence[Failure | None] = ()
    reasoning: Sequence[dict[str, Any] | None] = ()


def column_name(step_name: str) -> str:
    """Return the name of a step's failure column."""
    return f"failure_{step_name}"


def build_cell(failure: Failure | None) -> Cell:
    """Return the cell for a failure, always with the same keys, so that the column has one type."""
    if failure is None:
        return None
    return {
        "message": failure.message,
        "status_code": failure.status_code,
        "code": failure.code,
        "custom_id": failure.custom_id,
    }


def cell_text(cell: Cell) -> str | None:
    """Return a cell as one line of text."""
    return str(Failure(cell["message"], cell["status_code"], cell["code"])) if cell else None


def output_cells(output: Mapping[str, Any], generations: int) -> list[Cell]:
    """Return the cells for the rows of one output: a cell for each generation."""
    failures = output.failures if isinstance(output, AnnotatedOutput) else ()
    return [build_cell(failures[place] if place < len(failures) else None) for place in range(generations)]


def merge_generations(cells: object) -> object:
    """Return one cell for a row that holds several generations: the first failure, and the number of failures."""
    if not isinstance(cells, list):
        return cells
    failed = [cell for cell in cells if cell]
    if not failed or len(failed) == len(cells):
        return failed[0] if failed else None
    return failed[0] | {"message": f"{len(failed)} of {len(cells)} generations: {failed[0]['message']}"}


def match_failures(
    places: Sequence[int] | None,
    rows: Sequence[Row],
    calls: Sequence[Sequence[Outcome]],
    step_outputs: Sequence[str],
    group_error: Exception | None = None,
) -> list[Cell]:
    """Return the cells for a row group whose Task did not use `_format_outputs`.

    Args:
        places: the position of each row in the input, see `input_places`.
        rows: the group's output rows.
        calls: the outcomes of each call that the group made.
        step_outputs: the columns that the step adds.
        group_error: the error of the step, if the step raised; then `rows` has a row for each input row.
    """
    failures = [outcome for call in calls for outcome in call if isinstance(outcome, Failure)]
    if group_error is None and failures and places is None:
        return _group_cells(failures, rows, step_outputs)
    group_failure = None
    if group_error is not None:
        message = f"The row was lost with its row group: {group_error!r}."
        group_failure = Failure(f"{message} {_group_message(failures)}".strip(), code=ROW_GROUP_LOST)
    if places is None:
        return [build_cell(group_failure) for _ in rows]
    return [build_cell(_first_failure(calls, place) or group_failure) for place in places]


def _group_cells(failures: Sequence[Failure], rows: Sequence[Row], step_outputs: Sequence[str]) -> list[Cell]:
    first = failures[0]
    message = _group_message(failures)
    cell = build_cell(Failure(message, first.status_code, first.code, custom_id=first.custom_id))
    is_empty = [any(row.get(name) is None for name in step_outputs) for row in rows]
    # If every row has all columns, no row can be told to lack a part: each row gets the message.
    return [cell if empty or not any(is_empty) else None for empty in is_empty]


def _group_message(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    return f"In the row's group {plural(len(failures), 'request')} failed, the first: {failures[0]}"


def _first_failure(calls: Sequence[Sequence[Outcome]], place: int) -> Failure | None:
    """Return the first failure of a row's requests; else the first failure of a cut text that is kept."""
    outcomes = [call[place] for call in calls]
    failures = (outcome for outcome in outcomes if isinstance(outcome, Failure))
    answers = (outcome for outcome in outcomes if isinstance(outcome, Answer) and outcome.choice_failures)
    kept = (failure for answer in answers for failure in (answer.choice_failures or {}).values() if failure.is_kept)
    return next(chain(failures, kept), None)


def input_places(
    input_rows: Sequence[Row] | None,
    rows: Sequence[Row],
    calls: Sequence[Sequence[Outcome]],
    step_outputs: Sequence[str],
) -> list[int] | None:
    """Return each output row's position in the input, if every call made one request for each row in the same order.

    Args:
        input_rows: the group's input rows; `None` for a generator step.
        rows: see `match_failures`.
        calls: see `match_failures`.
        step_outputs: see `match_failures`.

    Returns:
        The positions, or `None` if a row's position is not certain.
    """
    size = len(rows) if input_rows is None else len(input_rows)
    if not size or len(rows) % size or any(len(call) != size for call in calls):
        return None
    places = [index // (len(rows) // size) for index in range(len(rows))]
    if input_rows is None:
        return places
    for row, place in zip(rows, places, strict=True):
        input_row = input_rows[place]
        # A Task passes on the very objects of the input row: an object that differs shows another order.
        passed_on = (name for name in input_row if name not in step_outputs and name != DISTILABEL_METADATA_KEY)
        if any(name in row and row[name] is not input_row[name] for name in passed_on):
            return None
    return places
