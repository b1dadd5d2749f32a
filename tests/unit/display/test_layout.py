"""Tests of `display.layout`."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Column

from distilabel_openai_batch.display.layout import (
    coloured_status,
    create_table,
    fit_table,
    number_columns,
    text_columns,
)


def render(table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("status", "markup"),
    [
        ("completed", "[green]completed[/]"),
        ("failed", "[red]failed[/]"),
        ("in_progress", "in_progress"),
        ("[x]", r"\[x]"),
    ],
)
def test_a_status_has_the_colour_of_its_kind(status, markup):
    assert coloured_status(status) == markup


def test_numbers_stand_on_the_right_and_never_break():
    [column] = number_columns("n")
    assert (column.justify, column.no_wrap) == ("right", True)
    [column] = text_columns("t")
    assert column.overflow == "fold"


def test_a_table_has_no_lines_between_its_cells():
    table = create_table(Column("a"), Column("b"))
    table.add_row("1", "2")
    assert render(table, 20) == ["a  b", "1  2"]


def fitted(width: int) -> list[str]:
    names = ("scope", "batch", "n", "age", "cost")
    table = fit_table(
        names, [("s" * 10, "b" * 10, "1", "2", "3")], ("total", "", "1", "2", "3"), width, names[2:], ("age", "cost")
    )
    return render(table, width)


@pytest.mark.parametrize(
    ("width", "header", "second_line"),
    [
        (36, "scope batch n age cost", "ssssssssss bbbbbbbbbb 1 2 3"),
        (24, "scope", "batch n age cost"),
        (19, "scope", "batch n cost"),
        (13, "scope", "batch n"),
    ],
)
def test_a_narrow_terminal_stacks_two_columns_then_drops_some(width, header, second_line):
    lines = [" ".join(line.split()) for line in fitted(width)]
    assert lines[:2] == [header, second_line]


def test_the_last_layout_is_taken_if_none_fits():
    assert "age" not in " ".join(fitted(5))
    assert "cost" not in " ".join(fitted(5))
