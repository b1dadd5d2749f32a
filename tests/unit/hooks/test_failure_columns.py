"""Tests of the failure column's cells."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.failure_codes import ROW_GROUP_LOST
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.hooks.failure_columns import (
    AnnotatedOutput,
    build_cell,
    cell_text,
    column_name,
    input_places,
    match_failures,
    merge_generations,
    output_cells,
)

BAD, GOOD = Failure("No.", 400, "bad", custom_id="a-0"), Answer.of({})
BAD_CELL = {"message": "No.", "status_code": 400, "code": "bad", "custom_id": "a-0"}
INPUT_ROWS = [{"id": str(number) * 3} for number in range(2)]


def match(input_rows, rows, calls, outputs, group_error=None) -> list[dict | None]:
    places = input_places(input_rows, rows, calls, outputs)
    return match_failures(places, rows, calls, outputs, group_error)


def codes(cells: list) -> list[str | None]:
    return [cell and cell["code"] for cell in cells]


def test_column_is_named_by_the_step():
    assert column_name("generate") == "failure_generate"


def test_cell_always_has_the_same_keys():
    assert build_cell(BAD) == BAD_CELL
    assert list(build_cell(Failure("No."))) == list(BAD_CELL)
    assert build_cell(None) is None


def test_cell_text_is_one_line():
    assert cell_text(BAD_CELL) == str(Failure("No.", 400, "bad"))
    assert cell_text(None) is None


def test_output_has_a_cell_for_each_generation():
    output = AnnotatedOutput(generations=["Yes.", None, "Yes."])
    output.failures = [None, BAD]
    assert output_cells(output, 3) == [None, BAD_CELL, None]
    assert output_cells({"generations": ["Yes."]}, 1) == [None]


@pytest.mark.parametrize(
    ("cells", "merged"),
    [
        ([None, None], None),
        ([BAD_CELL, BAD_CELL], BAD_CELL),
        ([None, BAD_CELL], BAD_CELL | {"message": "1 of 2 generations: No."}),
        (BAD_CELL, BAD_CELL),
        (None, None),
    ],
)
def test_generations_of_one_row_are_merged(cells, merged):
    assert merge_generations(cells) == merged


@pytest.mark.parametrize(
    ("rows", "calls", "expected"),
    [
        pytest.param([{**INPUT_ROWS[0]}, {**INPUT_ROWS[1]}], [[GOOD, BAD]], [None, "bad"], id="one row each"),
        pytest.param(
            [INPUT_ROWS[0], INPUT_ROWS[0], INPUT_ROWS[1], INPUT_ROWS[1]],
            [[BAD, GOOD]],
            ["bad", "bad", None, None],
            id="two rows each",
        ),
        pytest.param(INPUT_ROWS, [[GOOD, GOOD], [GOOD, BAD]], [None, "bad"], id="the second round"),
        pytest.param(
            [{**INPUT_ROWS[1], "o": 1}, {**INPUT_ROWS[0], "o": None}], [[BAD, GOOD]], [None, "bad"], id="another order"
        ),
        pytest.param([{**INPUT_ROWS[0], "o": 1}], [[BAD, GOOD]], ["bad"], id="a failure and no empty row"),
        pytest.param(INPUT_ROWS, [[GOOD, GOOD, BAD]], ["bad", "bad"], id="three requests for two rows"),
        pytest.param(INPUT_ROWS, [[GOOD, GOOD, GOOD]], [None, None], id="no failure"),
        pytest.param(INPUT_ROWS, [], [None, None], id="no call"),
    ],
)
def test_failures_are_matched_with_rows(rows, calls, expected):
    """Failures are matched one by one if counts and rows agree, otherwise with the whole group."""
    assert codes(match(INPUT_ROWS, rows, calls, ["o"])) == expected


def test_rows_of_a_generator_step_are_matched_by_position():
    assert codes(match(None, [{"o": 1}, {"o": None}], [[GOOD, BAD]], ["o"])) == [None, "bad"]


def test_rows_of_a_group_that_raised_are_lost():
    """A row keeps its own failure; the other rows name the error and the first failed request of the group."""
    own, other = match(INPUT_ROWS, INPUT_ROWS, [[BAD, GOOD]], ["o"], KeyError("o"))
    assert (own, other["code"]) == (BAD_CELL, ROW_GROUP_LOST)
    assert other["message"] == (
        f"The row was lost with its row group: KeyError('o'). In the row's group 1 request failed, the first: {BAD}"
    )


def test_rows_of_a_group_that_raised_before_any_call_are_lost():
    [first, _] = match(INPUT_ROWS, INPUT_ROWS, [], ["o"], KeyError("o"))
    assert first["message"] == "The row was lost with its row group: KeyError('o')."


def test_kept_cut_text_is_explained_unless_a_request_of_the_row_failed():
    """Answers of a Task that makes rows in its own way carry the failures of their cut choices."""
    cut = Answer.of({})
    cut.choice_failures = {0: Failure("Cut.", code="truncated", is_kept=True)}

    rows = [row | {"out": "text"} for row in INPUT_ROWS]

    assert codes(match(INPUT_ROWS, rows, [[cut, GOOD]], ["out"])) == ["truncated", None]
    assert codes(match(INPUT_ROWS, rows, [[cut, GOOD], [BAD, cut]], ["out"])) == ["bad", "truncated"]
