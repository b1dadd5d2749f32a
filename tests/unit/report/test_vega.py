"""Tests of `report.vega`."""

from __future__ import annotations

import sys
import time

import pytest

from distilabel_openai_batch.report import vega

HOUR = 3_600.0


def test_a_missing_drawing_library_is_noticed(monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert not vega.is_installed()


def test_labels_stand_at_whole_steps_inside_the_range(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    encoding = vega.time_axis("at", 1_000.5, 1_000.5 + HOUR, 600, has_labels=False)
    assert encoding["scale"]["domain"] == [1_000_500, 4_600_500]
    assert encoding["axis"]["values"][0] == 1_200_000
    assert encoding["axis"]["values"][-1] == 4_200_000
    assert encoding["axis"]["labels"] is False
    assert '"1200000": "00:20"' in encoding["axis"]["labelExpr"]


def test_a_drawing_has_its_descriptions_as_tooltips():
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")
    spec = vega.create_spec(
        300,
        height=50,
        data={"values": [{"at": 0, "text": "a < b & c"}, {"at": 10_000, "text": "d"}]},
        mark="rule",
        encoding={"x": vega.time_axis("at", 0, 10, 280), "description": {"field": "text"}},
    )
    image = vega.draw(spec)
    assert image.startswith("<svg")
    assert "<title>d</title>" in image
    assert "<title>a &lt; b &amp; c</title>" in image
    assert "<script" not in image


def test_colours_refer_to_the_page():
    assert vega.colour("good") == "var(--good)"
    assert vega.literal("shape")["scale"] is None
    assert vega.count_axis("answered", 5)["axis"]["tickMinStep"] == 1
