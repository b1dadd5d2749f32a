"""Tests of the reasoning column: its cells, and their way to the rows."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks.failure_columns import AnnotatedOutput
from distilabel_openai_batch.hooks.reasoning_columns import column_name, match_reasoning, output_cells, read_cells
from distilabel_openai_batch.hooks.row_columns import RowColumns, add_row_columns
from tests.unit.hooks.test_task_outputs import task_of

CALL = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
CALL_CELL = {"reasoning": None, "tool_calls": [{"id": "call_1", "name": "clock", "arguments": "{}"}]}


def body_of(*messages: object) -> dict:
    return {"choices": [{"message": message} for message in messages]}


def thought(text: str) -> dict:
    return {"reasoning": text, "tool_calls": None}


def thinking(text: str) -> Answer:
    return Answer.of(body_of({"content": "Yes.", "reasoning_content": text}))


def test_column_is_named_by_the_step():
    assert column_name("generate") == "reasoning_generate"


@pytest.mark.parametrize(
    ("message", "cell"),
    [
        ({"content": "Yes."}, None),
        ({"content": "Yes.", "reasoning_content": "I think."}, thought("I think.")),
        ({"content": "Yes.", "reasoning": "I think."}, thought("I think.")),
        ({"content": "Yes.", "reasoning_content": None, "reasoning": "I think."}, thought("I think.")),
        ({"content": None, "tool_calls": [CALL]}, CALL_CELL),
        ({"content": None, "tool_calls": [CALL], "reasoning": "I think."}, CALL_CELL | {"reasoning": "I think."}),
        ({"content": "Yes.", "reasoning_content": "", "tool_calls": []}, None),
        ({"content": "Yes.", "reasoning_content": ["I", "think."], "tool_calls": "clock"}, None),
        (
            {"tool_calls": [{"id": 1, "function": None}, None]},
            {"reasoning": None, "tool_calls": [{"id": "1", "name": None, "arguments": None}]},
        ),
        (None, None),
    ],
)
def test_cell_has_the_reasoning_and_the_tool_calls_of_a_choice(message, cell):
    assert read_cells(body_of(message)) == [cell]


@pytest.mark.parametrize("body", [{}, {"choices": None}, {"choices": {}}, {"data": []}])
def test_other_answers_have_no_cells(body):
    assert read_cells(body) == []


def test_output_has_a_cell_for_each_generation():
    output = AnnotatedOutput(generations=["Yes.", None, "Yes."])
    output.reasoning = [None, thought("Hm.")]

    assert output_cells(output, 3) == [None, thought("Hm."), None]
    assert output_cells({"generations": ["Yes."]}, 1) == [None]


@pytest.mark.parametrize(
    ("places", "cells"),
    [
        ([0, 1], [thought("A.\n\nC."), CALL_CELL]),
        ([1, 1], [CALL_CELL, CALL_CELL]),
        (None, [None, None]),
    ],
)
def test_cells_are_matched_with_rows(places, cells):
    """A row with several calls has the reasoning of all of them."""
    calls = [
        [thinking("A."), Answer.of(body_of({"tool_calls": [CALL]}))],
        [thinking("C."), Failure("No.")],
    ]

    assert match_reasoning(places, calls, 2) == cells


@pytest.mark.parametrize("add_failures", [True, False])
def test_rows_of_a_task_with_its_own_format_get_the_column(add_failures):
    """EvolInstruct makes its rows by itself."""
    task = task_of(add_failures=add_failures, keep_reasoning=True)
    columns = RowColumns.of(task.name, task.llm)
    log, row = CallLog(), {"instruction": "Say it."}
    log.add([thinking("Hm.")])

    [added] = add_row_columns(task, columns, log, [row], [row | {"generation": "Yes."}])

    assert added["reasoning_generate"] == thought("Hm.")
    assert added.get("failure_generate", "no column") == (None if add_failures else "no column")


def test_column_is_an_output_of_the_step_and_holds_each_generations_cell():
    task = task_of(keep_reasoning=True)
    output = AnnotatedOutput(generations=["Yes.", "No."], statistics={"input_tokens": [1], "output_tokens": [1]})
    output.reasoning = [thought("A."), None]

    assert list(task.get_outputs()) == ["generation", "model_name", "reasoning_generate"]
    rows = task._format_outputs(output, {"instruction": "Say it."})
    assert [row["reasoning_generate"] for row in rows] == [thought("A."), None]
