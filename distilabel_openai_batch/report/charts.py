"""Charts of a report: the timeline of jobs, and answers over time.

Each chart is drawn for several widths of the page: an image for a desktop is illegible on a telephone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from distilabel_openai_batch.report import vega
from distilabel_openai_batch.report.curves import Curve
from distilabel_openai_batch.report.history import (
    EndState,
    JobHistory,
    Phase,
    TimeBin,
    bin_jobs,
    time_range,
)
from distilabel_openai_batch.report.local_time import local
from distilabel_openai_batch.text import duration

WIDTHS = (311, 440, 640, 960)
"""Widths of the images of each chart, in pixels; the style shows the image that fits the reader's window."""

PHASE_COLOURS = {
    Phase.QUEUED: "queued",
    Phase.IN_PROGRESS: "working",
    Phase.FINALIZING: "finalizing",
    Phase.CANCELLING: "stopped",
    Phase.SYNCHRONOUS: "sync",
    Phase.UNKNOWN: "unknown",
}
"""Name of the page's colour for each phase."""

END_COLOURS = {
    EndState.COMPLETED: "good",
    EndState.EXPIRED: "late",
    EndState.CANCELLED: "stopped",
    EndState.FAILED: "bad",
    EndState.DROPPED: "unknown",
}
"""Name of the page's colour for each end of a job."""

END_SHAPES = {
    EndState.COMPLETED: "circle",
    EndState.EXPIRED: "triangle-up",
    EndState.CANCELLED: "square",
    EndState.FAILED: "cross",
    EndState.DROPPED: "diamond",
}
"""Shape of the mark for each end of a job, for readers who cannot distinguish the colours."""

MAX_JOB_LINES = 40
"""Largest number of jobs with one line each; more jobs are shown as stacked counts."""

_ROW_PIXELS = 24
_AXIS_PIXELS = 40
_PHASES_PIXELS = 220
_ENDS_PIXELS = 90
_BIN_PIXELS = 8
_ANSWERS_PIXELS = 220

# In a narrower chart the names of jobs would leave no space for their bars → label the lines with numbers.
_NAMES_FROM_PIXELS = 600
_NAME_CHARACTERS = 30

_State = TypeVar("_State", Phase, EndState)

# Control characters and code points outside XML's character set.
_NOT_IN_XML = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Chart:
    """Chart of the page.

    Attributes:
        images: pairs of a width in pixels and an SVG image.
    """

    images: tuple[tuple[int, str], ...]


def draw_timeline(histories: Sequence[JobHistory], widths: Sequence[int] = WIDTHS) -> Chart:
    """Draw the phases and ends of jobs: one line for each job, or stacked counts of many jobs."""
    if len(histories) <= MAX_JOB_LINES:
        return _draw(partial(_lines_spec, histories), widths)
    return _draw(lambda width: _bins_spec(bin_jobs(histories, width // _BIN_PIXELS), width), widths)


def draw_answers(curves: Sequence[Curve], widths: Sequence[int] = WIDTHS) -> Chart:
    """Draw the number of answers over time for each scope, and the number of all failures."""
    return _draw(partial(_answers_spec, curves), widths)


def _draw(spec: Callable[[int], dict[str, Any]], widths: Sequence[int]) -> Chart:
    return Chart(tuple((width, vega.draw(spec(width))) for width in widths))


def _lines_spec(histories: Sequence[JobHistory], width: int) -> dict[str, Any]:
    """Return the chart with one line for each job: a bar for each phase, and a mark at the end."""
    has_names = width >= _NAMES_FROM_PIXELS
    names = [_line_name(history, number) if has_names else f"{number}" for number, history in enumerate(histories, 1)]
    bars, marks = _bar_values(names, histories), _end_values(names, histories)
    start, end = time_range(histories)
    # Eight more pixels on the right → the mark of the job that ended last stays inside the chart.
    end += (end - start) * 8 / width
    label_pixels = 8 + vega.CHARACTER_PIXELS * max(map(len, names))
    pixels = width - label_pixels - 20
    y = _names_axis(names, label_pixels)
    return vega.create_spec(
        width,
        height=len(histories) * _ROW_PIXELS + _AXIS_PIXELS,
        layer=[
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "cornerRadius": 2, "minBandSize": 4},
                "encoding": {
                    "y": y,
                    "x": vega.time_axis("from", start, end, pixels),
                    "x2": {"field": "to"},
                    "color": vega.literal("colour"),
                    "description": {"field": "text"},
                },
            },
            {
                "data": {"values": marks},
                "mark": {"type": "point", "filled": True, "size": 110, "strokeWidth": 1.5, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": vega.time_axis("at", start, end, pixels),
                    "fill": vega.literal("colour"),
                    "stroke": {"value": vega.colour("card")},
                    "shape": vega.literal("shape"),
                    "description": {"field": "text"},
                },
            },
        ],
    )


def _names_axis(names: Sequence[str], pixels: int) -> dict[str, Any]:
    """Return the encoding of jobs from top to bottom, with labels as wide as `pixels`."""
    return {
        "field": "job",
        "type": "nominal",
        "sort": names,
        "title": None,
        "axis": {
            "domain": False,
            "ticks": False,
            "labelPadding": 8,
            "labelLimit": 0,
            # The drawing library may measure a narrower font than the browser shows.
            "minExtent": pixels,
        },
        "scale": {"paddingInner": 0.35, "paddingOuter": 0.25},
    }


def _bar_values(names: Sequence[str], histories: Sequence[JobHistory]) -> list[dict[str, Any]]:
    return [
        {
            "job": name,
            "from": vega.milliseconds(span.start),
            "to": vega.milliseconds(span.end),
            "colour": vega.colour(PHASE_COLOURS[span.phase]),
            "text": f"{_job_name(history)}: {span.phase.value} for {duration(span.end - span.start)},"
            f" {_format_moment(span.start)} to {_format_moment(span.end)}",
        }
        for name, history in zip(names, histories, strict=True)
        for span in history.spans
    ]


def _end_values(names: Sequence[str], histories: Sequence[JobHistory]) -> list[dict[str, Any]]:
    return [
        {
            "job": name,
            "at": vega.milliseconds(history.end),
            "colour": vega.colour(END_COLOURS[history.end_state]),
            "shape": END_SHAPES[history.end_state],
            "text": f"{_job_name(history)}: {history.end_state.value} at {_format_moment(history.end)};"
            f" {history.answered:,} of {history.job.requests:,} answered",
        }
        for name, history in zip(names, histories, strict=True)
        if history.end_state is not EndState.OPEN
    ]


def _bins_spec(bins: Sequence[TimeBin], width: int) -> dict[str, Any]:
    """Return the chart of many jobs: jobs in each phase above, ended jobs below, both stacked."""
    phases = [value for time_bin in bins for value in _stack(time_bin, time_bin.phases, PHASE_COLOURS, ",.1f")]
    ends = [value for time_bin in bins for value in _stack(time_bin, time_bin.ends, END_COLOURS, ",")]
    start, end = bins[0].start, bins[-1].end
    pixels = width - vega.COUNT_AXIS_PIXELS - 26

    def panel(values: list[dict[str, Any]], title: str, height: int, ticks: int, has_labels: bool) -> dict[str, Any]:
        return {
            "width": pixels,
            "height": height,
            "data": {"values": values},
            "title": {"text": title, "anchor": "start", "frame": "bounds"},
            "mark": "rect",
            "encoding": {
                "x": vega.time_axis("from", start, end, pixels, has_labels),
                "x2": {"field": "to"},
                "y": vega.count_axis("low", ticks),
                "y2": {"field": "high"},
                "color": vega.literal("colour"),
                "description": {"field": "text"},
            },
        }

    above = panel(phases, "Open jobs", _PHASES_PIXELS, 5, has_labels=False)
    below = panel(ends, "Ended jobs", _ENDS_PIXELS, 3, has_labels=True)
    return vega.create_config(width) | {"vconcat": [above, below], "spacing": 14}


def _stack(
    time_bin: TimeBin, jobs: Mapping[_State, float], colours: Mapping[_State, str], number_format: str
) -> Iterator[dict[str, Any]]:
    """Yield the rectangles of a bin, one above the other, in the order of `colours`."""
    low = 0.0
    for state, colour in colours.items():
        if count := jobs.get(state):
            yield {
                "from": vega.milliseconds(time_bin.start),
                "to": vega.milliseconds(time_bin.end),
                "low": round(low, 3),
                "high": round(low + count, 3),
                "colour": vega.colour(colour),
                "text": f"{_format_moment(time_bin.start)} to {_format_moment(time_bin.end)}:"
                f" {count:{number_format}} {state.value}",
            }
            low += count


def _answers_spec(curves: Sequence[Curve], width: int) -> dict[str, Any]:
    """Return the chart of answers and failures, with an invisible line at each moment for the tooltips."""
    counts = curves[0].counts
    values = [_moment_values(curves, number) for number in range(len(counts))]
    x = vega.time_axis("at", counts[0].at, counts[-1].at, width - vega.COUNT_AXIS_PIXELS - 20)
    layer = [
        {
            "mark": _curve_mark(curve, has_area=len(curves) == 1),
            "encoding": {"x": x, "y": vega.count_axis(f"answered{number}", 5)},
        }
        for number, curve in enumerate(curves)
    ]
    if any(curve.counts[-1].failed for curve in curves):
        layer.append(
            {
                "mark": {"type": "line", "color": vega.colour("bad"), "strokeWidth": 2, "strokeDash": [5, 3]},
                "encoding": {"x": x, "y": vega.count_axis("failed", 5)},
            }
        )
    tooltips = {
        "mark": {"type": "rule", "strokeWidth": max(2.0, width / len(values)), "opacity": 0},
        "encoding": {"x": x, "description": {"field": "text"}},
    }
    return vega.create_spec(width, height=_ANSWERS_PIXELS, data={"values": values}, layer=[*layer, tooltips])


def _moment_values(curves: Sequence[Curve], number: int) -> dict[str, Any]:
    """Return the values of all curves at one moment, with the text of the tooltip."""
    at = curves[0].counts[number].at
    failed = sum(curve.counts[number].failed for curve in curves)
    answered = ", ".join(
        f"{curve.counts[number].answered:,} {'answered' if len(curves) == 1 else _drop_undrawable(curve.name)}"
        for curve in curves
    )
    return {
        "at": vega.milliseconds(at),
        "failed": failed,
        "text": f"{_format_moment(at)}: {answered}, {failed:,} failed",
        **{f"answered{place}": curve.counts[number].answered for place, curve in enumerate(curves)},
    }


def _curve_mark(curve: Curve, has_area: bool) -> dict[str, Any]:
    line = {"color": vega.colour(curve.colour), "strokeWidth": 2}
    if not has_area:
        return {"type": "line", **line}
    return {"type": "area", "color": vega.colour(curve.colour), "fillOpacity": 0.18, "line": line}


def _format_moment(seconds: float) -> str:
    moment = local(seconds)
    return f"{moment.day} {moment:%b %H:%M:%S}"


def _line_name(history: JobHistory, number: int) -> str:
    """Return the label of a job's line; its number distinguishes jobs of one scope."""
    scope = _drop_undrawable(history.job.scope.label)
    if len(scope) > _NAME_CHARACTERS:
        scope = f"{scope[: _NAME_CHARACTERS - 1]}…"
    return f"{scope} {number}"


def _job_name(history: JobHistory) -> str:
    return _drop_undrawable(f"{history.job.scope.label}, {history.job.batch_id or 'no batch'}")


def _drop_undrawable(text: str) -> str:
    """Return a text without characters that XML lacks, at which the drawing library ends the process."""
    return _NOT_IN_XML.sub("", text)
