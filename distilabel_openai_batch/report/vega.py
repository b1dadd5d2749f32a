"""Parts of Vega-Lite specifications, and the drawing of a specification as SVG.

The images need no script, and take their colours from the CSS variables of the page.
"""

from __future__ import annotations

import json
import re
from typing import Any

from distilabel_openai_batch.report.local_time import label_moments

HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[report]'"
"""Command that installs the drawing library."""

COUNT_AXIS_PIXELS = 38
"""Width of the labels beside an axis of counts."""

CHARACTER_PIXELS = 7
"""Width of a character of a label."""

_GAP_PIXELS = 22

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_FONT = "system-ui, sans-serif"

# Marks with a description and without a title.
_MARK = re.compile(r'(<(path|line)\b[^>]*\baria-label="([^"]*)"[^>]*?)\s*/>')


def is_installed() -> bool:
    """Return whether the drawing library is installed."""
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        return False
    return True


def draw(spec: dict[str, Any]) -> str:
    """Return a specification as an SVG image; each description is also the tooltip of its mark."""
    # vl_convert brings a JavaScript engine → import when a chart is drawn.
    import vl_convert

    return _MARK.sub(r"\1><title>\3</title></\2>", vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]))


def create_spec(width: int, **parts: Any) -> dict[str, Any]:
    """Return the specification of a chart that fits into a width.

    Args:
        width: pixels.
        parts: further top-level properties.
    """
    return create_config(width) | {"width": width, "autosize": {"type": "fit", "contains": "padding"}} | parts


def create_config(width: int) -> dict[str, Any]:
    """Return the top-level properties that all charts share: fonts, colours, padding."""
    muted = {"labelColor": colour("muted"), "titleColor": colour("muted"), "gridColor": colour("line")}
    return {
        "$schema": _SCHEMA,
        "background": None,
        "padding": {"left": 2, "right": 10, "top": 4, "bottom": 2},
        "config": {
            "font": _FONT,
            "view": {"stroke": None},
            "axis": muted
            | {
                "labelFontSize": 11,
                "domainColor": colour("line"),
                "tickColor": colour("line"),
                "labelPadding": 5,
                "labelOverlap": "greedy",
                "labelSeparation": 12,
            },
            "title": {"color": colour("muted"), "fontSize": 11, "fontWeight": "normal"},
        },
    }


def time_axis(field: str, start: float, end: float, pixels: int, has_labels: bool = True) -> dict[str, Any]:
    """Return the encoding of moments from left to right.

    Args:
        field: the field with the moments, in milliseconds since the epoch.
        start: the left end, in seconds since the epoch.
        end: the right end, in seconds since the epoch.
        pixels: the length of the axis.
        has_labels: whether labels stand below the axis.
    """
    ticks = label_moments(start, end, pixels, CHARACTER_PIXELS, _GAP_PIXELS)
    return {
        "field": field,
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc", "domain": [milliseconds(start), milliseconds(end)], "nice": False},
        "axis": {
            "values": [milliseconds(at) for at in ticks],
            # The drawing library knows no zone of this machine → the texts are made here.
            "labelExpr": f"({json.dumps({milliseconds(at): label for at, label in ticks.items()})})[time(datum.value)]",
            "grid": True,
            "labels": has_labels,
            "ticks": has_labels,
            "labelBound": True,
            "labelFlush": False,
        },
    }


def count_axis(field: str, ticks: int) -> dict[str, Any]:
    """Return the encoding of counts from bottom to top.

    Args:
        field: the field with the counts.
        ticks: the desired number of labels.
    """
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
            "minExtent": COUNT_AXIS_PIXELS,
        },
    }


def literal(field: str) -> dict[str, Any]:
    """Return the encoding of a field that holds the colour or the shape itself."""
    return {"field": field, "type": "nominal", "scale": None, "legend": None}


def colour(name: str) -> str:
    """Return the reference to a colour of the page."""
    return f"var(--{name})"


def milliseconds(seconds: float) -> int:
    """Return seconds as the whole milliseconds that Vega-Lite reads."""
    return round(seconds * 1_000)
