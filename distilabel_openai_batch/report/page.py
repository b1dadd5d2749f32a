"""The report: one page with what became of a ledger's jobs, that loads nothing and runs nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from urllib.parse import urlsplit

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.advice import next_step
from distilabel_openai_batch.ledger.entries import FailureReason
from distilabel_openai_batch.pricing import job_costs
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import Cost, format_dollars
from distilabel_openai_batch.report import charts
from distilabel_openai_batch.report.charts import Chart
from distilabel_openai_batch.report.history import Ending, History, Phase, answers_over_time
from distilabel_openai_batch.text import duration

_JOBS_LISTED = 100
_REASONS_LISTED = 20
_MODELS_LISTED = 20
_MESSAGE_CHARACTERS = 240
_POINTS = 97

# Should a server quote a key in an error, or an address have a password.
_KEY = re.compile(r"\bsk-[\w*-]{6,}")
_PASSWORD = re.compile(r"//[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of.

    Attributes:
        title: whose jobs they are.
        histories: how they went on, oldest first.
        reasons: why requests have no answer, the most frequent reason first.
        answered, failed, under_way: requests that are so now.
        now: when it was looked, in seconds since the epoch.
    """

    title: str
    histories: Sequence[History]
    reasons: Sequence[FailureReason]
    answered: int
    failed: int
    under_way: int
    now: float


def is_installed() -> bool:
    """Whether all is there that a page is made with."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return False
    return charts.is_installed()


def render(facts: Facts) -> str:
    """The page, as HTML.

    Args:
        facts: what it says.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(_values(facts))


def _values(facts: Facts) -> dict[str, object]:
    jobs = [history.job for history in facts.histories]
    models = job_costs.costs_by_model(jobs)
    over_time = answers_over_time(facts.histories, _POINTS)
    return {
        "title": facts.title,
        "made": _moment(facts.now),
        "period": _period(facts.histories),
        "cards": _cards(facts, models),
        "timeline": _images(charts.timeline(facts.histories)) if facts.histories else None,
        "one_by_one": len(facts.histories) <= charts.JOBS_ONE_BY_ONE,
        "phases": _phases(facts.histories),
        "endings": _endings(facts.histories),
        "answers": _images(charts.answers(over_time))
        if over_time and (over_time[-1].answered + over_time[-1].failed)
        else None,
        "has_failures": bool(over_time and over_time[-1].failed),
        "reasons": [_reason(reason, facts.reasons) for reason in facts.reasons[:_REASONS_LISTED]],
        "more_reasons": max(0, len(facts.reasons) - _REASONS_LISTED),
        "models": [_model(entry, models) for entry in models[:_MODELS_LISTED]],
        "more_models": max(0, len(models) - _MODELS_LISTED),
        "unknown": list(
            dict.fromkeys(
                _quoted(job_costs.explain_unknown_cost(job)) for job in jobs if job_costs.cost_of_job(job) is None
            )
        ),
        "jobs": [_job(*each) for each in list(enumerate(facts.histories, 1))[: -_JOBS_LISTED - 1 : -1]],
        "more_jobs": max(0, len(facts.histories) - _JOBS_LISTED),
    }


def _cards(facts: Facts, models: Sequence[CostEntry]) -> list[dict[str, str]]:
    requests = facts.answered + facts.failed + facts.under_way
    share = f"{facts.answered / requests:.1%} of {requests:,} requests" if requests else "no requests yet"
    is_open = sum(history.ending is Ending.OPEN for history in facts.histories)
    ended = "all have ended" if facts.histories else "none yet"
    usage = sum((entry.usage for entry in models), Usage(0, 0))
    cost = job_costs.sum_costs(entry.cost for entry in models)
    answers, unknown = (sum(getattr(entry, name) for entry in models) for name in ("answers", "unknown"))
    cards = [
        {"name": "Answered", "value": f"{facts.answered:,}", "note": share, "colour": "good"},
        {
            "name": "Failed",
            "value": f"{facts.failed:,}",
            "note": "without an answer now" if facts.failed else "none is without an answer for good",
            "colour": "bad" if facts.failed else "",
        },
        {
            "name": "Jobs",
            "value": f"{len(facts.histories):,}",
            "note": f"{is_open:,} under way, {facts.under_way:,} requests in them" if is_open else ended,
            "colour": "working" if is_open else "",
        },
        {
            "name": "Tokens",
            "value": _short(usage.tokens_in + usage.tokens_out),
            "note": f"{_short(usage.tokens_in)} in, {_short(usage.tokens_out)} out",
            "colour": "",
        },
    ]
    if answers > unknown:
        part = f" for {answers - unknown:,} of {answers:,} answers" if unknown else ""
        cards.append(
            {
                "name": "Saved",
                "value": format_dollars(cost.saved),
                "note": f"{format_dollars(cost.spent)} spent instead of {format_dollars(cost.full_price)}{part}",
                "colour": "good",
            }
        )
    return cards


def _images(chart: Chart) -> list[tuple[int, str]]:
    """The images, which are markup: what they say of the ledger was escaped when they were drawn."""
    from markupsafe import Markup

    return [(width, Markup(image)) for width, image in zip(charts.WIDTHS, chart.images, strict=True)]  # noqa: S704


def _phases(histories: Sequence[History]) -> list[dict[str, str]]:
    seen = {stretch.phase for history in histories for stretch in history.stretches}
    return [{"name": phase.value, "colour": charts.PHASE_COLOURS[phase]} for phase in Phase if phase in seen]


def _endings(histories: Sequence[History]) -> list[dict[str, str]]:
    counts = Counter(history.ending for history in histories)
    return [
        {
            "name": ending.value,
            "colour": charts.ENDING_COLOURS[ending],
            "shape": charts.ENDING_SHAPES[ending],
            "count": f"{counts[ending]:,}",
        }
        for ending in charts.ENDING_COLOURS
        if counts[ending]
    ]


def _reason(reason: FailureReason, reasons: Sequence[FailureReason]) -> dict[str, object]:
    failure = Failure(reason.message, reason.status_code, reason.code)
    return {
        "count": f"{reason.count:,}",
        "share": f"{100 * reason.count / reasons[0].count:.2f}%",
        "labels": [str(known) for known in (reason.status_code, reason.code) if known],
        "message": _quoted(reason.message),
        "advice": next_step(failure, reason.custom_ids[0]),
    }


def _model(entry: CostEntry, entries: Sequence[CostEntry]) -> dict[str, object]:
    most = max((each.usage.tokens_in + each.usage.tokens_out for each in entries), default=0) or 1
    known: Cost | None = entry.cost if entry.answers > entry.unknown else None
    return {
        "scope": entry.scope.label,
        "model": entry.model or "?",
        "answers": f"{entry.answers:,}",
        "tokens_in": _short(entry.usage.tokens_in),
        "tokens_out": _short(entry.usage.tokens_out),
        "share_in": f"{100 * entry.usage.tokens_in / most:.2f}%",
        "share_out": f"{100 * entry.usage.tokens_out / most:.2f}%",
        "share_spent": f"{100 * known.spent / known.full_price:.2f}%" if known and known.full_price else "",
        "spent": format_dollars(known.spent) if known else "?",
        "saved": format_dollars(known.saved) if known else "?",
    }


def _job(number: int, history: History) -> dict[str, str]:
    job = history.job
    return {
        "number": f"{number:,}",
        "batch": job.batch_id or ("asked at once" if job.is_synchronous else "no batch"),
        "scope": job.scope.label,
        "server": urlsplit(job.scope.base_url).hostname or "",
        "ending": history.ending.value if history.ending is not Ending.OPEN else job.status,
        "colour": charts.ENDING_COLOURS.get(history.ending, "working"),
        "answered": f"{history.answered:,}/{job.requests:,}",
        "failed": f"{job.failed:,}",
        "planned": _moment(job.created_at),
        "took": duration(history.end - history.start),
        "error": _quoted(job.error) if job.error else "",
    }


def _quoted(message: str) -> str:
    message = _PASSWORD.sub("//", _KEY.sub("sk-…", message))
    return message if len(message) <= _MESSAGE_CHARACTERS else f"{message[:_MESSAGE_CHARACTERS]}…"


def _period(histories: Sequence[History]) -> str:
    if not histories:
        return ""
    start, end = min(history.start for history in histories), max(history.end for history in histories)
    first, last = _moment(start), _moment(end)
    day, _, time_of_day = last.partition(", ")
    return f"{first} to {time_of_day if first.startswith(day) else last} UTC, {duration(end - start)}"


def _moment(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{at.day} {at:%b %Y, %H:%M}"


def _short(number: int) -> str:
    """A number in a few characters: `12.3M`."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1_000 if unit == 'k' else size):,.1f}{unit}"
    return f"{number:,}"
