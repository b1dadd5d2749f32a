"""SVG charts of the figures."""

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
_MARKERS = "osD^vP"


def draw(plot: Plot, path: Path) -> bool:
    """Draw a chart.

    Args:
        plot: chart to draw.
        path: SVG file to write.

    Returns:
        `False` if matplotlib is not installed.
    """
    if matplotlib is None:
        return False
    matplotlib.use("svg")
    # Text stays text, and ids do not change between runs → equal data gives an equal file.
    options = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(options):
        figure, axes = pyplot.subplots(figsize=(7.5, _height_of(plot)), layout="constrained")
        if isinstance(plot, Bars):
            _draw_bars(axes, plot)
        else:
            _draw_lines(axes, plot)
        axes.set_title(plot.title, loc="left", fontsize=11)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return True


def _height_of(plot: Plot) -> float:
    return 1.2 + 0.38 * len(plot.values) if isinstance(plot, Bars) else 4.2


def _colour_of(name: str) -> str:
    if "OpenAIBatchLLM" in name or "StreamBatchResults" in name or name.endswith("tokens"):
        return _OURS
    return _FLOOR if name in ("floor", NAMES["none"]) else _OTHERS


def _draw_bars(axes: Any, plot: Bars) -> None:
    names, values = list(plot.values), list(plot.values.values())
    bars = axes.barh(
        [_without_backticks(name) for name in names], values, color=[_colour_of(name) for name in names], height=0.62
    )
    axes.bar_label(bars, labels=[_format_number(value) for value in values], padding=4, fontsize=9)
    highest = max([*values, plot.limit[0] if plot.limit else 0.0])
    axes.set_xlim(min(0.0, *values), highest * 1.15 or 1.0)
    axes.invert_yaxis()
    axes.set_xlabel(plot.unit)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=highest > 5))
    axes.xaxis.set_major_formatter(lambda value, _: _format_number(value))
    axes.tick_params(axis="y", length=0)
    if plot.limit:
        axes.axvline(plot.limit[0], color=_LIMIT, linestyle="--", linewidth=1, label=plot.limit[1])


def _draw_lines(axes: Any, plot: Lines) -> None:
    others = iter(zip(_COLOURS, _MARKERS, strict=True))
    for name, points in plot.series.items():
        xs, ys = zip(*points, strict=True)
        if _colour_of(name) == _OURS:
            axes.plot(xs, ys, color=_OURS, marker="o", linewidth=2.2, label=_without_backticks(name), zorder=3)
        else:
            colour, marker = next(others)
            axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.2, label=_without_backticks(name))
    if plot.limit:
        points, label = plot.limit
        axes.plot(*zip(*points, strict=True), color=_LIMIT, linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(sorted({x for points in plot.series.values() for x, _ in points})))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: _format_number(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %" if plot.y == "share" else f"{value:,g}")
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)


def _format_number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _without_backticks(name: str) -> str:
    return name.replace("`", "")
