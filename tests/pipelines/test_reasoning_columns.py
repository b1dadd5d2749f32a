"""Tests of `keep_reasoning`: a column has the reasoning of each row's answer."""

from __future__ import annotations

import pytest

from tests.pipelines.test_failure_columns import generation_task, llm, number_rows, process_rows


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
def test_each_generation_keeps_the_summary_of_its_reasoning(sandbox, grouped):
    """Generations are rows of their own, or grouped in one row."""
    thinking_llm = llm(model="gpt-5-pro", keep_reasoning=True)
    rows = process_rows(generation_task(llm=thinking_llm, num_generations=2, group_generations=grouped), number_rows(4))

    cells = [cell for row in rows for cell in (row["reasoning_generate"] if grouped else [row["reasoning_generate"]])]
    assert len(cells) == 8
    assert all(cell["reasoning"].startswith("**Weighing") and cell["tool_calls"] is None for cell in cells)
    assert [row["failure_generate"] for row in rows] == [None] * len(rows)
