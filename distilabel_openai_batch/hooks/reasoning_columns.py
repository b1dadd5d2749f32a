"""Build the reasoning column: a cell for each row with the reasoning and the tool calls of its answers.

The cells find their rows as those of the failure column do, see `failure_columns`. Touches nothing of distilabel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.hooks.failure_columns import AnnotatedOutput

Cell = dict[str, Any] | None

# Fields of a message that hold the reasoning: https://api-docs.deepseek.com/guides/reasoning_model,
# https://docs.vllm.ai/en/latest/features/reasoning_outputs.html. `api/responses.py` uses the first one too.
_REASONING_FIELDS = ("reasoning_content", "reasoning")


def column_name(step_name: str) -> str:
    """Return the name of a step's reasoning column."""
    return f"reasoning_{step_name}"


def read_cells(body: Mapping[str, Any]) -> list[Cell]:
    """Return the cells for the choices of a completion; a choice without reasoning and tool calls has `None`."""
    choices = body.get("choices")
    return [_read_cell(choice) for choice in choices] if isinstance(choices, list) else []


def output_cells(output: Mapping[str, Any], generations: int) -> list[Cell]:
    """Return the cells for the rows of one output: a cell for each generation."""
    cells = output.reasoning if isinstance(output, AnnotatedOutput) else ()
    return [cells[place] if place < len(cells) else None for place in range(generations)]


def match_reasoning(places: Sequence[int] | None, calls: Sequence[Sequence[Outcome]], rows: int) -> list[Cell]:
    """Return the cells for a row group whose Task did not use `_format_outputs`.

    Args:
        places: each row's position in the input; `None` if a position is not certain, so that no row gets a cell.
        calls: the outcomes of each call that the group made.
        rows: number of rows.
    """
    if places is None:
        return [None] * rows
    answers = ([call[place] for call in calls] for place in places)
    return [
        _join(cell for answer in group if isinstance(answer, Answer) for cell in read_cells(answer.body))
        for group in answers
    ]


def _read_cell(choice: object) -> Cell:
    """Return the cell for a choice, always with the same keys, so that the column has one type."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    texts = (message.get(name) for name in _REASONING_FIELDS)
    reasoning = next((text for text in texts if isinstance(text, str) and text), None)
    calls = message.get("tool_calls")
    tool_calls = [_read_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return {"reasoning": reasoning, "tool_calls": tool_calls or None} if reasoning or tool_calls else None


def _read_call(call: Mapping[str, Any]) -> dict[str, str | None]:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    fields = {"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
    return {name: None if value is None else str(value) for name, value in fields.items()}


def _join(cells: Iterable[Cell]) -> Cell:
    """Return one cell for several answers: the reasoning as paragraphs, and all tool calls."""
    present = [cell for cell in cells if cell]
    if not present:
        return None
    texts = [cell["reasoning"] for cell in present if cell["reasoning"]]
    tool_calls = [call for cell in present for call in cell["tool_calls"] or ()]
    return {"reasoning": "\n\n".join(texts) or None, "tool_calls": tool_calls or None}
