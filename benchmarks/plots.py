"""Draws what a figure says, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.figure import Bars, Lines, Plot

_OURS, _OTHERS = "#c2410c", "#64748b"
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
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    from matplotlib import pyplot

    # Text as text; the same ids in each run, so that a plot that says the same is the same file.
    options = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(options):
        figure, axes = pyplot.subplots(figsize=(7.5, _height(plot)), layout="constrained")
        if isinstance(plot, Bars):
            _bars(axes, plot)
        else:
            _lines(axes, plot)
        axes.set_title(plot.title, loc="left", fontsize=11)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        pyplot.close(figure)
    return True


def _height(plot: Plot) -> float:
    return 1.1 + 0.38 * len(plot.values) if isinstance(plot, Bars) else 4.2


def _is_ours(name: str) -> bool:
    return "OpenAIBatchLLM" in name or "StreamBatchResults" in name


def _bars(axes: Any, plot: Bars) -> None:
    names = list(plot.values)
    colours = [_OURS if _is_ours(name) else _OTHERS for name in names]
    bars = axes.barh([_plain(name) for name in names], list(plot.values.values()), color=colours, height=0.62)
    highest = max([*plot.values.values(), plot.limit[0] if plot.limit else 0.0])
    labels = [f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}" for value in plot.values.values()]
    axes.bar_label(bars, labels=labels, padding=4, fontsize=9)
    axes.set_xlim(min(0.0, *plot.values.values()), highest * 1.15 or 1.0)
    axes.invert_yaxis()
    axes.set_xlabel(plot.unit)
    axes.tick_params(axis="y", length=0)
    if plot.limit:
        axes.axvline(plot.limit[0], color="#111827", linestyle="--", linewidth=1)
        axes.annotate(
            plot.limit[1],
            (plot.limit[0], 1.0),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            ha="left",
            va="bottom",
            xytext=(3, 0),
            textcoords="offset points",
        )


def _lines(axes: Any, plot: Lines) -> None:
    others = iter(zip(_COLOURS, _MARKS, strict=True))
    for name, points in plot.series.items():
        xs, ys = zip(*points, strict=True)
        if _is_ours(name):
            axes.plot(xs, ys, color=_OURS, marker="o", linewidth=2.2, label=_plain(name), zorder=3)
        else:
            colour, mark = next(others)
            axes.plot(xs, ys, color=colour, marker=mark, markersize=5, linewidth=1.2, label=_plain(name))
    if plot.limit:
        points, label = plot.limit
        axes.plot(*zip(*points, strict=True), color="#111827", linestyle="--", linewidth=1, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.legend(frameon=False, fontsize=9)


def _plain(name: str) -> str:
    return name.replace("`", "")
