"""Structured output without instructor, and columns of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from distilabel.steps import GeneratorStep
from distilabel.steps.base import _Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.engine.calls import outcomes_seen
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.row_groups import _with_reasons
from distilabel_openai_batch.hooks.step_process import _formatted, _reasons_column


def _ask_for_structured_output_without_instructor(is_ours: Callable[[Any], bool]) -> None:
    """A Task of ours that asks for structured output by default does so without `instructor`.

    distilabel refuses to load it where that is not installed, and none can be beside today's openai.
    """
    set_default_structured_output = _Task._set_default_structured_output

    def wrapped(self: Any) -> None:
        if not is_ours(self):
            set_default_structured_output(self)
            return
        schema = self.get_structured_output()
        if schema and self.use_default_structured_output and not self.llm.structured_output:
            self.llm.structured_output = {"schema": schema, "format": "json"}

    _Task._set_default_structured_output = wrapped


def _say_why_rows_failed(client_of: Callable[[Any], Any]) -> None:
    """With `add_failures`, the rows of a step of ours have a column that says why they have no answer.

    distilabel has a Task make rows of each output of its LLM by `_format_outputs`: there it is known which generation
    of which row failed. A step that comes to be asked for its output columns names this one too, so that steps after
    it may ask for it.
    """
    get_outputs, format_outputs = _Step.get_outputs, _Task._format_outputs
    process_applying_mappings = GeneratorStep.process_applying_mappings

    def adds(step: Any) -> bool:
        client = client_of(step)
        return client is not None and client.add_failures

    def naming(self: Any) -> dict[str, bool]:
        outputs: dict[str, bool] = get_outputs(self)
        named_apart = _reasons_column.get() is not None
        return outputs | {failure_columns.column(self.name): True} if adds(self) and not named_apart else outputs

    def formatting(self: Any, outputs: Any, input: Any = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = format_outputs(self, outputs, input)
        if adds(self):
            column = _reasons_column.get() or failure_columns.column(self.name)
            for row, cell in zip(rows, failure_columns.cells(outputs, len(rows)), strict=True):
                row[column] = cell
            if (formatted := _formatted.get()) is not None:
                formatted.append(len(rows))
        return rows

    def generating(self: Any, offset: int = 0) -> Iterator[tuple[list[dict[str, Any]], bool]]:
        batches = process_applying_mappings(self, offset)
        if not adds(self):
            yield from batches
            return
        outcomes_seen.set([])
        _formatted.set([])
        for rows, is_last in batches:
            yield _with_reasons(self, failure_columns.column(self.name), None, rows), is_last
            outcomes_seen.set([])
            _formatted.set([])

    _Step.get_outputs = naming
    _Task._format_outputs = formatting
    GeneratorStep.process_applying_mappings = generating
