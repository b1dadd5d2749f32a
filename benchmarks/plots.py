"""Draws what a figure says, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.figure import Bars, Lines, Plot
from benchmarks.plans import NAMES

try:
    import matplotlib
    from matplotlib import pyplot, ticker
except ImportError:
    matplotlib = None

_OURS, _OTHERS, _FLOOR, _LIMIT = "#c2410c", "#64748b", "#cbd5e1", "#111827"
_COLOURS = ("#2563eb", "#059669", "#7c3aed", "#b45309", "#0891b2", "#64748b")
_MARKS = "osD^vP"


def draw(plot: Plot, path: Path) -> bool:
    """Draws a plot.

    Args:
        plot: what to draw.
        path: the SVG file.

    Returns:
        `False` where matplotlib is not installed.
    """
    if matplotlib is None:
        return False
    matplotlib.use("svg")
    # Text as text; the same ids in each run, so that a plot that says the same is the same file.
    options = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(options):
        figure, axes = pyplot.subplots(figsize=(7.5, _height(plot)), layout="constrained")
        if isinstance(plot, Bars):
            _bars(axes, plot)
        else:
            _lines(axes, plot)
        axes.set_title(plot.title, loc="left", fontsize=11)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return True


def _height(plot: Plot) -> float:
    return 1.2 + 0.38 * len(plot.values) if isinstance(plot, Bars) else 4.2


def _colour(name: str) -> str:
    if "OpenAIBatchLLM" in name or "StreamBatchResults" in name or name.endswith("tokens"):
        return _OURS
    return _FLOOR if name in ("floor", NAMES["none"]) else _OTHERS


def _bars(axes: Any, plot: Bars) -> None:
    names, values = list(plot.values), list(plot.values.values())
    bars = axes.barh([_plain(name) for name in names], values, color=[_colour(name) for name in names], height=0.62)
    axes.bar_label(bars, labels=[_number(value) for value in values], padding=4, fontsize=9)
    highest = max([*values, plot.limit[0] if plot.limit else 0.0])
    axes.set_xlim(min(0.0, *values), highest * 1.15 or 1.0)
    axes.invert_yaxis()
    axes.set_xlabel(plot.unit)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=highest > 5))
    axes.xaxis.set_major_formatter(lambda value, _: _number(value))
    axes.tick_params(axis="y", length=0)
    if plot.limit:
        axes.axvline(plot.limit[0], color=_LIMIT, linestyle="--", linewidth=1, label=plot.limit[1])


def _lines(axes: Any, plot: Lines) -> None:
    others = iter(zip(_COLOURS, _MARKS, strict=True))
    for name, points in plot.series.items():
        xs, ys = zip(*points, strict=True)
        if _colour(name) == _OURS:
            axes.plot(xs, ys, color=_OURS, marker="o", linewidth=2.2, label=_plain(name), zorder=3)
        else:
            colour, mark = next(others)
            axes.plot(xs, ys, color=colour, marker=mark, markersize=5, linewidth=1.2, label=_plain(name))
    if plot.limit:
        points, label = plot.limit
        axes.plot(*zip(*points, strict=True), color=_LIMIT, linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(sorted({x for points in plot.series.values() for x, _ in points})))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: _number(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %" if plot.y == "share" else f"{value:,g}")
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _plain(name: str) -> str:
    return name.replace("`", "")
