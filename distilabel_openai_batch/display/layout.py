"""Layout of tables: columns, colours of statuses, and the choice of columns that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from distilabel_openai_batch.ledger.entries import INTERRUPTED
from distilabel_openai_batch.ledger.states import NOT_FOUND
from distilabel_openai_batch.text import printable

UNLIMITED_WIDTH = 10_000
"""Number of terminal columns that fits every table, for output without a terminal."""

# Columns of a terminal below which a cut text says nothing.
_SHORTEST_TEXT = 8

_STATUS_COLOURS = {
    "completed": "green",
    "failed": "red",
    "expired": "yellow",
    "cancelled": "yellow",
    "canceled": "yellow",
    "cancelling": "yellow",
    INTERRUPTED: "yellow",
    NOT_FOUND: "red",
    "dropped": "red",
}


def markup(text: str) -> str:
    """Return the rich markup of a text as it is: no part of the text counts as markup or commands the terminal."""
    return escape(printable(text))


def coloured_status(status: str) -> str:
    """Return a status as rich markup, in the colour of its kind."""
    colour = _STATUS_COLOURS.get(status)
    return f"[{colour}]{markup(status)}[/]" if colour else markup(status)


def create_table(*columns: Column) -> Table:
    """Create an empty table without lines between its cells."""
    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def text_columns(*names: str) -> Iterator[Column]:
    """Yield columns whose long texts break anywhere."""
    return (Column(name, overflow="fold") for name in names)


def number_columns(*names: str) -> Iterator[Column]:
    """Yield right-aligned columns whose numbers never break."""
    return (Column(name, justify="right", no_wrap=True) for name in names)


def fit_table(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    sums: Sequence[str],
    width: int,
    number_names: Sequence[str],
    droppable: Sequence[str],
) -> Table:
    """Create a table in the first layout that breaks no name in two, so that names can be copied.

    The layouts are, in this order: all columns; the second text of each row below the first one; the same without the
    first of `droppable`, without the first two, and so on. The last layout is taken if none fits.

    Args:
        names: the headers of the columns.
        rows: one markup text for each column.
        sums: the last row, in bold; empty for none.
        width: the number of terminal columns.
        number_names: the columns that hold numbers.
        droppable: the columns that may be dropped, the least important one first.
    """
    lines = [names, *rows, *([sums] if sums else [])]
    layouts = [
        _lay_out(names, lines, is_stacked=False, dropped=()),
        *(_lay_out(names, lines, is_stacked=True, dropped=droppable[:count]) for count in range(len(droppable) + 1)),
    ]
    header, *body = next((layout for layout in layouts if _measure_width(layout) <= width), layouts[-1])
    table = create_table(
        *(next(number_columns(name) if name in number_names else text_columns(name)) for name in header)
    )
    for number, line in enumerate(body):
        table.add_row(*line, style="bold" if sums and number == len(body) - 1 else None)
    return table


def fit_lines(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    short_rows: Sequence[Sequence[str]],
    width: int,
    number_names: Sequence[str],
    droppable: Sequence[str],
) -> Table:
    """Create a table with one line for each row, in the first layout that fits.

    The layouts are, in this order: all columns; all columns with the short rows; the same without the first of
    `droppable`, without the first two, and so on. If none fits, the texts of the first column are cut in the last one.

    Args:
        names: the headers of the columns.
        rows: one markup text for each column.
        short_rows: the same rows with shorter texts.
        width: the number of terminal columns.
        number_names: the columns that hold numbers.
        droppable: the columns that may be dropped, the least important one first.
    """
    layouts = [
        _lay_out(names, [names, *rows], is_stacked=False, dropped=()),
        *(
            _lay_out(names, [names, *short_rows], is_stacked=False, dropped=droppable[:count])
            for count in range(len(droppable) + 1)
        ),
    ]
    header, *body = layout = next((each for each in layouts if _measure_width(each) <= width), layouts[-1])
    first_width = max(Text.from_markup(line[0]).cell_len for line in layout)
    first = Column(
        header[0],
        no_wrap=True,
        overflow="ellipsis",
        width=max(_SHORTEST_TEXT, first_width - max(0, _measure_width(layout) - width)),
    )
    others = (next(number_columns(name)) if name in number_names else Column(name, no_wrap=True) for name in header[1:])
    table = create_table(first, *others)
    for line in body:
        table.add_row(*line)
    return table


def _lay_out(
    names: Sequence[str], lines: Sequence[Sequence[str]], is_stacked: bool, dropped: Sequence[str]
) -> list[list[str]]:
    """Return the lines without the dropped columns; if `is_stacked`, the first two texts share a cell."""
    places = [place for place, name in enumerate(names) if name not in dropped]
    cells = [[line[place] for place in places] for line in lines]
    return [["\n".join(filter(None, line[:2])), *line[2:]] for line in cells] if is_stacked else cells


def _measure_width(layout: Sequence[Sequence[str]]) -> int:
    """Return the number of terminal columns that a layout needs, with two between neighbouring cells."""
    columns = list(zip(*layout, strict=True))
    widths = [
        max(Text.from_markup(line).cell_len for text in column for line in text.split("\n")) for column in columns
    ]
    return sum(widths) + 2 * (len(columns) - 1)
