"""Curves of answers over time: one for each scope, with the smallest scopes in one. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distilabel_openai_batch.report.history import AnswerCounts, JobHistory, count_answers_over_time

_POINTS = 97

COLOURS = ("good", "working", "finalizing", "late", "sync")
"""Names of the page's colours for curves, the first for a page with one curve."""

OTHERS_COLOUR = "unknown"
"""Name of the page's colour for the curve of all other scopes."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Answers of a scope over time.

    Attributes:
        name: the scope's name; `answered` for a page about one scope.
        colour: name of the page's colour.
        counts: the answers and failures at each moment, at least one.
    """

    name: str
    colour: str
    counts: Sequence[AnswerCounts]

    @property
    def has_outcomes(self) -> bool:
        """Return whether any request has an outcome."""
        return bool(self.counts[-1].answered + self.counts[-1].failed)


def draw_curves(histories: Sequence[JobHistory]) -> list[Curve]:
    """Return a curve for each scope, the one with most answers first, all with the same moments.

    Args:
        histories: the jobs; without jobs there are no curves.
    """
    by_scope: dict[str, list[JobHistory]] = {}
    for history in histories:
        by_scope.setdefault(history.job.scope.label, []).append(history)
    if len(by_scope) < 2:
        counts = count_answers_over_time(histories, _POINTS)
        return [Curve("answered", COLOURS[0], counts)] if counts else []
    scopes = sorted(by_scope, key=lambda name: -sum(history.answered for history in by_scope[name]))
    shown = len(COLOURS) if len(scopes) <= len(COLOURS) else len(COLOURS) - 1
    curves = [
        Curve(name, colour, count_answers_over_time(by_scope[name], _POINTS, histories))
        for name, colour in zip(scopes[:shown], COLOURS, strict=False)
    ]
    if others := [history for name in scopes[shown:] for history in by_scope[name]]:
        name = f"{len(scopes) - shown:,} other scopes"
        curves.append(Curve(name, OTHERS_COLOUR, count_answers_over_time(others, _POINTS, histories)))
    return curves
