"""Why a row has no answer, in a column of its own: what stands there, and which of a row's failures it is. Pure.

What a request came to is known where the answer is read, and rows are made by Tasks that know nothing of it. So it is
tied to its row in one of two ways. A Task that gives each output of the LLM to distilabel's `_format_outputs`, as most
do, has it tied there, generation by generation. For any other the calls that a row group has made are laid beside its
rows, where both are as many, and a row still has the columns that it came with; where they are not, a row is told of
its group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distilabel.constants import DISTILABEL_METADATA_KEY

from distilabel_openai_batch.api.failure_codes import LOST
from distilabel_openai_batch.api.outcomes import Failure, Outcome

Row = dict[str, Any]
Cell = dict[str, Any] | None


class Output(dict[str, Any]):
    """What an LLM gives for one input, where some of it failed.

    Attributes:
        failures: why a generation is `None`, for each of them.
    """

    failures: Sequence[Failure | None] = ()


def column(step_name: str) -> str:
    """The name of the column of a step's failures."""
    return f"failure_{step_name}"


def cell(failure: Failure | None) -> Cell:
    """What stands in the column. Its keys are always the same, so that the column has one type."""
    if failure is None:
        return None
    return {
        "message": failure.message,
        "status_code": failure.status_code,
        "code": failure.code,
        "custom_id": failure.custom_id,
    }


def text(of: Cell) -> str | None:
    """What stands in the column, as a text."""
    return str(Failure(of["message"], of["status_code"], of["code"])) if of else None


def cells(output: Mapping[str, Any], generations: int) -> list[Cell]:
    """What stands in the rows that are made of an output, one for each generation."""
    failures = output.failures if isinstance(output, Output) else ()
    return [cell(failures[place] if place < len(failures) else None) for place in range(generations)]


def grouped(found: object) -> object:
    """What stands in a row that holds several generations: the first failure, and of how many it is."""
    if not isinstance(found, list):
        return found
    failed = [each for each in found if each]
    if not failed or len(failed) == len(found):
        return failed[0] if failed else None
    return failed[0] | {"message": f"{len(failed)} of {len(found)} generations: {failed[0]['message']}"}


def beside(
    given: Sequence[Row] | None,
    found: Sequence[Row],
    calls: Sequence[Sequence[Outcome]],
    made: Sequence[str],
    lost: Exception | None = None,
) -> list[Cell]:
    """What stands in rows of which it is not known what they were made of.

    Args:
        given: the rows of the group; `None` for a step that makes its own.
        found: the rows that the step made of them.
        calls: what each of its calls came to.
        made: the columns that the step adds.
        lost: why it could not go on, if it could not; then there is a row for each of `given`.
    """
    failed = [outcome for call in calls for outcome in call if isinstance(outcome, Failure)]
    owners = _owners(len(found) if given is None else len(given), given, found, calls, made)
    if owners is not None:
        own = [next((call[place] for call in calls if isinstance(call[place], Failure)), None) for place in owners]
    else:
        own = [None] * len(found)
    told: Failure | None = None
    if lost is not None:
        told = Failure(f"It was lost with its row group: {lost!r}.{_of_the_group(failed)}", code=LOST)
    elif failed and owners is None:
        first = failed[0]
        told = Failure(_of_the_group(failed).strip(), first.status_code, first.code, custom_id=first.custom_id)
        empty = [any(row.get(name) is None for name in made) for row in found]
        # If each row has something, nobody can say which of them lacks a part.
        return [cell(told) if is_empty or not any(empty) else None for is_empty in empty]
    return [cell(failure or told) for failure in own]  # type: ignore[arg-type]


def _of_the_group(failed: Sequence[Failure]) -> str:
    return f" In its row group {len(failed)} requests failed, the first: {failed[0]}" if failed else ""


def _owners(
    size: int,
    given: Sequence[Row] | None,
    found: Sequence[Row],
    calls: Sequence[Sequence[Outcome]],
    made: Sequence[str],
) -> list[int] | None:
    """The place of the row that each row was made of, where every call asked once for each row, in their order."""
    if not size or len(found) % size or any(len(call) != size for call in calls):
        return None
    places = [index // (len(found) // size) for index in range(len(found))]
    if given is None:
        return places
    for row, place in zip(found, places, strict=True):
        before = given[place]
        # A row is passed on with the very values that it came with.
        own = (name for name in before if name not in made and name != DISTILABEL_METADATA_KEY)
        if any(name in row and row[name] is not before[name] for name in own):
            return None
    return places
