"""The charts of a report, drawn by Vega-Lite: images that need no script, and take their colours from the page.

Each is drawn once for every width that a page may have: what is drawn for a desk is not legible on a telephone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from distilabel_openai_batch.report.history import Answers, Crowd, Ending, History, Phase, crowds, span

HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[report]'"
"""What installs what charts are drawn with."""

WIDTHS = (311, 440, 640, 960)
"""The widths that each chart is drawn for, in pixels."""

PHASE_COLOURS = {
    Phase.QUEUED: "queued",
    Phase.IN_PROGRESS: "working",
    Phase.FINALIZING: "finalizing",
    Phase.CANCELLING: "stopped",
    Phase.ASKED_AT_ONCE: "sync",
    Phase.UNDER_WAY: "unknown",
}
"""Which of the page's colours a phase has."""

ENDING_COLOURS = {
    Ending.COMPLETED: "good",
    Ending.EXPIRED: "late",
    Ending.CANCELLED: "stopped",
    Ending.FAILED: "bad",
    Ending.DROPPED: "unknown",
}
"""Which of the page's colours an ending has."""

ENDING_SHAPES = {
    Ending.COMPLETED: "circle",
    Ending.EXPIRED: "triangle-up",
    Ending.CANCELLED: "square",
    Ending.FAILED: "cross",
    Ending.DROPPED: "diamond",
}
"""The shape that marks an ending: nobody has to tell colours apart."""

JOBS_ONE_BY_ONE = 40
"""As many jobs have a line each; more are shown as a crowd."""

_ROW_PIXELS = 24
_AXIS_PIXELS = 40
_CROWD_PIXELS = 220
_ENDINGS_PIXELS = 90
_SPAN_PIXELS = 8
_COUNT_PIXELS = 38
_GAP_PIXELS = 22

# Below this width the names of jobs would leave no room for their bars: they have a number.
_NAMES_FROM = 600
_NAME_CHARACTERS = 30
_CHARACTER_PIXELS = 7

_Kind = TypeVar("_Kind", Phase, Ending)

# How moments are named, and in how many characters, by the seconds that are shown.
_TIMES = ((3 * 86_400, "%-d %b", 6), (300, "%H:%M", 5), (0, "%H:%M:%S", 8))

# Seconds between two moments that are named.
_DAY = 86_400
_STEPS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 10_800, 21_600, _DAY // 2, _DAY, 2 * _DAY, 7 * _DAY)

# All control characters, and what is no character.
_NOT_IN_XML = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_FONT = "system-ui, sans-serif"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        images: an SVG for each of `WIDTHS`.
    """

    images: tuple[str, ...]


def is_installed() -> bool:
    """Whether there is something to draw with."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        return False
    return True


def timeline(found: Sequence[History]) -> Chart:
    """When jobs were in which phase, and how they ended: a line for each, or all at once where there are many."""
    if len(found) <= JOBS_ONE_BY_ONE:
        return _drawn(_one_by_one(found, width) for width in WIDTHS)
    return _drawn(_together(crowds(found, width // _SPAN_PIXELS), width) for width in WIDTHS)


def answers(over_time: Sequence[Answers]) -> Chart:
    """How many answers there were by when, and how many failures."""
    return _drawn(_answers(over_time, width) for width in WIDTHS)


def _one_by_one(found: Sequence[History], width: int) -> dict[str, Any]:
    numbered = width < _NAMES_FROM
    names = [f"{number}" if numbered else _name(history, number) for number, history in enumerate(found, 1)]
    bars = [
        {
            "job": name,
            "from": _milliseconds(stretch.start),
            "to": _milliseconds(stretch.end),
            "colour": _colour(PHASE_COLOURS[stretch.phase]),
            "said": f"{_said(history)}: {stretch.phase.value} for {_length(stretch.end - stretch.start)},"
            f" {_clock(stretch.start)} to {_clock(stretch.end)}",
        }
        for name, history in zip(names, found, strict=True)
        for stretch in history.stretches
    ]
    ends = [
        {
            "job": name,
            "at": _milliseconds(history.end),
            "colour": _colour(ENDING_COLOURS[history.ending]),
            "shape": ENDING_SHAPES[history.ending],
            "said": f"{_said(history)}: {history.ending.value} at {_clock(history.end)};"
            f" {history.answered:,} of {history.job.requests:,} answered",
        }
        for name, history in zip(names, found, strict=True)
        if history.ending is not Ending.OPEN
    ]
    start, end = span(found)
    # The mark of a job that ended last stands within the chart.
    room = (end - start) * 8 / width
    extent = 8 + _CHARACTER_PIXELS * max(map(len, names))
    plot = width - extent - 20
    y = {
        "field": "job",
        "type": "nominal",
        "sort": names,
        "title": None,
        "axis": {
            "domain": False,
            "ticks": False,
            "labelPadding": 8,
            "labelLimit": 0,
            # What draws here may have a narrower font than what shows it.
            "minExtent": extent,
        },
        "scale": {"paddingInner": 0.35, "paddingOuter": 0.25},
    }
    return _spec(
        width,
        height=len(found) * _ROW_PIXELS + _AXIS_PIXELS,
        layer=[
            {
                "data": {"values": bars},
                "mark": {"type": "bar", "cornerRadius": 2, "minBandSize": 4},
                "encoding": {
                    "y": y,
                    "x": _time("from", start, end + room, plot),
                    "x2": {"field": "to"},
                    "color": _as_it_is("colour"),
                    "description": {"field": "said"},
                },
            },
            {
                "data": {"values": ends},
                "mark": {"type": "point", "filled": True, "size": 110, "strokeWidth": 1.5, "opacity": 1},
                "encoding": {
                    "y": y,
                    "x": _time("at", start, end + room, plot),
                    "fill": _as_it_is("colour"),
                    "stroke": {"value": _colour("card")},
                    "shape": _as_it_is("shape"),
                    "description": {"field": "said"},
                },
            },
        ],
    )


def _together(some: Sequence[Crowd], width: int) -> dict[str, Any]:
    phases = {phase: _colour(colour) for phase, colour in PHASE_COLOURS.items()}
    endings = {ending: _colour(colour) for ending, colour in ENDING_COLOURS.items()}
    under_way = [each for crowd in some for each in _stacked(crowd, crowd.phases, phases, ",.1f")]
    ended = [each for crowd in some for each in _stacked(crowd, crowd.endings, endings, ",")]
    start, end = some[0].start, some[-1].end

    plot = width - _COUNT_PIXELS - 26

    def part(values: list[dict[str, Any]], title: str, height: int, ticks: int, named: bool) -> dict[str, Any]:
        return {
            "width": plot,
            "height": height,
            "data": {"values": values},
            "title": {"text": title, "anchor": "start", "frame": "bounds"},
            "mark": "rect",
            "encoding": {
                "x": _time("from", start, end, plot, named),
                "x2": {"field": "to"},
                "y": _count("low", ticks),
                "y2": {"field": "high"},
                "color": _as_it_is("colour"),
                "description": {"field": "said"},
            },
        }

    above = part(under_way, "Jobs under way", _CROWD_PIXELS, 5, named=False)
    below = part(ended, "Jobs that ended", _ENDINGS_PIXELS, 3, named=True)
    return _config(width) | {"vconcat": [above, below], "spacing": 14}


def _stacked(
    crowd: Crowd, jobs: Mapping[_Kind, float], colours: Mapping[_Kind, str], shown: str
) -> Iterator[dict[str, Any]]:
    """What stands above one another in a span of time."""
    low = 0.0
    for kind, colour in colours.items():
        if count := jobs.get(kind):
            yield {
                "from": _milliseconds(crowd.start),
                "to": _milliseconds(crowd.end),
                "low": round(low, 3),
                "high": round(low + count, 3),
                "colour": colour,
                "said": f"{_clock(crowd.start)} to {_clock(crowd.end)}: {count:{shown}} {kind.value}",
            }
            low += count


def _answers(over_time: Sequence[Answers], width: int) -> dict[str, Any]:
    values = [
        {
            "at": _milliseconds(each.at),
            "answered": each.answered,
            "failed": each.failed,
            "said": f"{_clock(each.at)}: {each.answered:,} answered, {each.failed:,} failed",
        }
        for each in over_time
    ]
    start, end = over_time[0].at, over_time[-1].at
    x = _time("at", start, end, width - _COUNT_PIXELS - 20)
    layer: list[dict[str, Any]] = [
        {
            "mark": {
                "type": "area",
                "color": _colour("good"),
                "fillOpacity": 0.18,
                "line": {"color": _colour("good"), "strokeWidth": 2},
            },
            "encoding": {"x": x, "y": _count("answered", 5)},
        }
    ]
    if over_time[-1].failed:
        layer.append(
            {
                "mark": {"type": "line", "color": _colour("bad"), "strokeWidth": 2, "strokeDash": [5, 3]},
                "encoding": {"x": x, "y": _count("failed", 5)},
            }
        )
    # What a pointer is told, wherever it stands.
    hover = {
        "mark": {"type": "rule", "strokeWidth": max(2.0, width / len(values)), "opacity": 0},
        "encoding": {"x": x, "description": {"field": "said"}},
    }
    return _spec(width, height=220, data={"values": values}, layer=[*layer, hover])


def _spec(width: int, **parts: Any) -> dict[str, Any]:
    return _config(width) | {"width": width, "autosize": {"type": "fit", "contains": "padding"}} | parts


def _config(width: int) -> dict[str, Any]:
    quiet = {"labelColor": _colour("muted"), "titleColor": _colour("muted"), "gridColor": _colour("line")}
    return {
        "$schema": _SCHEMA,
        "background": None,
        "padding": {"left": 2, "right": 10, "top": 4, "bottom": 2},
        "config": {
            "font": _FONT,
            "view": {"stroke": None},
            "axis": quiet
            | {
                "labelFontSize": 11,
                "domainColor": _colour("line"),
                "tickColor": _colour("line"),
                "labelPadding": 5,
                "labelOverlap": "greedy",
                "labelSeparation": 12,
            },
            "title": {"color": _colour("muted"), "fontSize": 11, "fontWeight": "normal"},
        },
    }


def _time(field: str, start: float, end: float, plot: int, named: bool = True) -> dict[str, Any]:
    """Moments from left to right.

    Args:
        field: what has them, in milliseconds since the epoch.
        start: from when, in seconds since the epoch.
        end: until when.
        plot: the pixels that there are for it.
        named: whether they are named below.
    """
    shown, characters = next((shown, size) for shortest, shown, size in _TIMES if end - start >= shortest)
    apart = (end - start) / plot * (characters * _CHARACTER_PIXELS + _GAP_PIXELS)
    step = next((step for step in _STEPS if step >= apart), math.ceil(apart / _STEPS[-1]) * _STEPS[-1])
    first = math.ceil(start / step)
    ticks = [_milliseconds(step * number) for number in range(first, math.floor(end / step) + 1)]
    return {
        "field": field,
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc", "domain": [_milliseconds(start), _milliseconds(end)], "nice": False},
        "axis": {
            "format": shown,
            "values": ticks,
            "grid": True,
            "labels": named,
            "ticks": named,
            "labelBound": True,
            "labelFlush": False,
        },
    }


def _count(field: str, ticks: int) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": None,
        "axis": {
            "tickCount": ticks,
            "tickMinStep": 1,
            "labelExpr": "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '~s')",
            "domain": False,
            "ticks": False,
            "minExtent": _COUNT_PIXELS,
        },
    }


def _as_it_is(field: str) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "scale": None, "legend": None}


def _colour(name: str) -> str:
    return f"var(--{name})"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1_000)


def _clock(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{at.day} {at:%b %H:%M:%S}"


def _length(seconds: float) -> str:
    from distilabel_openai_batch.text import duration

    return duration(seconds)


def _name(history: History, number: int) -> str:
    """What a line is called; two jobs never have one name."""
    scope = _drawable(history.job.scope.label)
    if len(scope) > _NAME_CHARACTERS:
        scope = f"{scope[: _NAME_CHARACTERS - 1]}…"
    return f"{scope} {number}"


def _said(history: History) -> str:
    return _drawable(f"{history.job.scope.label}, {history.job.batch_id or 'no batch'}")


def _drawable(text: str) -> str:
    """A text without the characters that no XML has: what draws would end the process at one."""
    return _NOT_IN_XML.sub("", text)


# Each mark that says what it is, and is not yet closed.
_MARK = re.compile(r'(<(path|line)\b[^>]*\baria-label="([^"]*)"[^>]*?)\s*/>')


def _drawn(specs: Iterable[dict[str, Any]]) -> Chart:
    # Imported where it is needed: it brings an engine of its own along.
    import vl_convert

    return Chart(tuple(_titled(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])) for spec in specs))


def _titled(image: str) -> str:
    """An image that tells a pointer too what it tells a screen reader."""
    return _MARK.sub(r"\1><title>\3</title></\2>", image)
