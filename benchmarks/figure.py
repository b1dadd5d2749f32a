"""Data of one figure of the report: table, targets and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True)
class Target:
    """Goal for this package, compared with the measurement.

    Attributes:
        text: the goal.
        met: `True` if the goal is met, `False` if missed, `None` if not measured.
        observed: the measured values, or the reason why there are none.
    """

    text: str
    met: bool | None
    observed: str


@dataclass(frozen=True)
class Bars:
    """Bar chart with one bar per name.

    Attributes:
        title: title of the chart.
        unit: unit of the values.
        values: value by name.
        limit: value and label of a reference line, if any.
    """

    title: str
    unit: str
    values: dict[str, float]
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class Lines:
    """Line chart with logarithmic axes.

    Attributes:
        title: title of the chart.
        x: label of the x axis.
        y: label of the y axis; `share` formats the axis in percent.
        series: points (x, y) by name.
        limit: points and label of a reference line, if any.
    """

    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    limit: tuple[list[tuple[float, float]], str] | None = None


Plot = Bars | Lines


@dataclass(frozen=True)
class Figure:
    """Figure of the report.

    Attributes:
        name: name on the command line and in `results.json`.
        title: heading of the section.
        method: description of the measurement.
        rows: rows of the table; every row has the same keys.
        targets: goals for this package.
        plots: charts.
        notes: remarks below the table.
    """

    name: str
    title: str
    method: str
    rows: Sequence[dict[str, Cell]]
    targets: Sequence[Target] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the figure without its plots, with the keys of `results.json`."""
        return {
            "title": self.title,
            "how": self.method,
            "rows": list(self.rows),
            "targets": [{"text": target.text, "met": target.met, "seen": target.observed} for target in self.targets],
            "notes": list(self.notes),
        }


def ratio(value: float | None, base: float | None) -> float | None:
    """Return `value / base`; `None` if `value` is unknown, or `base` is unknown or zero."""
    return value / base if value is not None and base else None


def format_ratio(value: float | None) -> str:
    """Format a ratio with two decimals and a multiplication sign; return an empty string for `None`."""
    return "" if value is None else f"{value:.2f} ×"
