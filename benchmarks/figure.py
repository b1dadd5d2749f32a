"""What one figure of the report consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float | None


@dataclass(frozen=True)
class Target:
    """What ours is to come to.

    Attributes:
        text: what it says.
        met: whether it holds; `None` where it could not be seen.
        seen: what was seen.
    """

    text: str
    met: bool | None
    seen: str


@dataclass(frozen=True)
class Bars:
    """A plot of one value for each of several names.

    Attributes:
        title: what it says above.
        unit: what the values are.
        values: the value of each name.
        limit: a line across, and what it says; none where there is none.
    """

    title: str
    unit: str
    values: dict[str, float]
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class Lines:
    """A plot of series over logarithmic axes.

    Attributes:
        title: what it says above.
        x: what the points lie along.
        y: what they are.
        series: the points of each.
        limit: a further series, drawn as a limit, and what it says; none where there is none.
    """

    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    limit: tuple[list[tuple[float, float]], str] | None = None


Plot = Bars | Lines


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: what it is called by.
        title: what it says above.
        how: how it was measured.
        rows: its table; each row has the same keys.
        targets: what ours is to come to.
        plots: what is drawn of it.
        notes: what has to be known besides.
    """

    name: str
    title: str
    how: str
    rows: Sequence[dict[str, Cell]]
    targets: Sequence[Target] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The figure without its plots."""
        return {
            "title": self.title,
            "how": self.how,
            "rows": list(self.rows),
            "targets": [vars(target) for target in self.targets],
            "notes": list(self.notes),
        }


def ratio(value: float | None, to: float | None) -> float | None:
    """One to the other, where there are both."""
    return value / to if value is not None and to else None


def times(value: float | None) -> str:
    """A ratio, as a reader likes it."""
    return "" if value is None else f"{value:.2f} ×"
