"""HTML page about the jobs of a ledger, which loads no other file and runs no script."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.advice import ANY_WAY, next_step
from distilabel_openai_batch.ledger.entries import FailureReason, ScopeEntry, group_failures
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.pricing import job_costs
from distilabel_openai_batch.pricing.job_costs import CostEntry
from distilabel_openai_batch.pricing.prices import format_cost, sum_known
from distilabel_openai_batch.report import charts, vega
from distilabel_openai_batch.report.charts import Chart
from distilabel_openai_batch.report.curves import draw_curves
from distilabel_openai_batch.report.history import EndState, JobHistory, Phase, build_histories
from distilabel_openai_batch.report.local_time import local, zone_name
from distilabel_openai_batch.text import duration, plural, printable

_JOBS_LISTED = 100
_REASONS_LISTED = 20
_MODELS_LISTED = 20
_MESSAGE_CHARACTERS = 240

_CODE = re.compile(r"`([^`\n]+)`")

# A server's error may quote an API key, and an address may contain a password.
_KEY = re.compile(r"\bsk-[\w*-]{6,}")
_PASSWORD = re.compile(r"//[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class ReportData:
    """Content of a report.

    Attributes:
        title: the scope's name, or a name for all scopes.
        histories: the histories of the jobs, oldest first.
        reasons: the reasons of failed requests, the most frequent one first.
        answered, failed, pending: number of requests in each state.
        now: the time of the report, in seconds since the epoch.
        copied: number of the answers that were taken from another scope, whose jobs were billed.
    """

    title: str
    histories: Sequence[JobHistory]
    reasons: Sequence[FailureReason]
    answered: int
    failed: int
    pending: int
    now: float
    copied: int = 0


def read_report(reader: LedgerReader, scopes: Sequence[ScopeEntry], title: str, now: float) -> ReportData:
    """Read the content of a report from a ledger.

    Args:
        reader: the ledger.
        scopes: the scopes of the report.
        title: see `ReportData`.
        now: see `ReportData`.

    Raises:
        LedgerError: there is no ledger, or the file cannot be read.
    """
    names = {entry.name for entry in scopes}
    jobs = reader.jobs(scopes[0].name) if len(scopes) == 1 else reader.jobs()
    timelines = reader.timelines(scopes[0].name) if len(scopes) == 1 else reader.timelines()
    return ReportData(
        title=title,
        histories=[each for each in build_histories(jobs, timelines, now) if each.job.scope in names],
        reasons=group_failures(failure for failure in reader.failures(scopes) if not failure.is_replaced),
        answered=sum(entry.answered for entry in scopes),
        failed=sum(entry.failed for entry in scopes),
        pending=sum(entry.pending for entry in scopes),
        now=now,
        copied=sum(job.copied for job in jobs if job.scope in names),
    )


def is_installed() -> bool:
    """Return whether the packages of the extra `report` are installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return False
    return vega.is_installed()


def render(data: ReportData) -> str:
    """Return the page as HTML."""
    return render_template("page.html", page_values(data))


def render_template(name: str, values: Mapping[str, object]) -> str:
    """Return a template of this folder as HTML.

    Args:
        name: the template's file name.
        values: the values of the template's variables.
    """
    return printable(_environment().get_template(name).render(values))


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters["mark_code"] = _mark_code
    return environment


def _mark_code(text: str) -> Any:
    """Return a text as markup, with the parts between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped before


def page_values(data: ReportData, widths: Sequence[int] = charts.WIDTHS) -> dict[str, object]:
    """Return the values of the template's variables.

    Args:
        data: the content of the page.
        widths: the widths of each chart's images, of `charts.WIDTHS`.
    """
    jobs = [history.job for history in data.histories]
    zone = zone_name(data.now)
    models = job_costs.costs_by_model(jobs)
    curves = draw_curves(data.histories)
    unpriced_jobs = [job for job in jobs if job_costs.cost_of_job(job) is None]
    latest = list(enumerate(data.histories, 1))[: -_JOBS_LISTED - 1 : -1]
    return {
        "title": data.title,
        "made": f"{_format_minute(data.now)} {zone}",
        "zone": zone,
        "period": _format_period(data.histories),
        "cards": _cards(data, models),
        "timeline": _images(charts.draw_timeline(data.histories, widths)) if data.histories else None,
        "has_job_lines": len(data.histories) <= charts.MAX_JOB_LINES,
        "phases": _phases(data.histories),
        "ends": _ends(data.histories),
        "answers": _images(charts.draw_answers(curves, widths))
        if any(curve.has_outcomes for curve in curves)
        else None,
        "curves": [{"name": curve.name, "colour": curve.colour} for curve in curves],
        "has_failures": any(curve.counts[-1].failed for curve in curves),
        "reasons": [_reason(reason, data.reasons) for reason in data.reasons[:_REASONS_LISTED]],
        "more_reasons": max(0, len(data.reasons) - _REASONS_LISTED),
        "models": [_model(entry, models) for entry in models[:_MODELS_LISTED]],
        "more_models": max(0, len(models) - _MODELS_LISTED),
        "unknown_costs": list(dict.fromkeys(_redact(job_costs.explain_unknown_cost(job)) for job in unpriced_jobs)),
        "jobs": [_job(number, history) for number, history in latest],
        "more_jobs": max(0, len(data.histories) - _JOBS_LISTED),
    }


def _cards(data: ReportData, models: Sequence[CostEntry]) -> list[dict[str, str]]:
    """Return the cards at the top: answered, failed, jobs, tokens, and savings if a cost is known."""
    requests = data.answered + data.failed + data.pending
    share = f"{data.answered / requests:.1%} of {plural(requests, 'request')}" if requests else "no requests yet"
    cut = sum(history.job.cut for history in data.histories)
    share += f"; {cut:,} cut at the limit of tokens" if cut else ""
    replaced = sum(history.job.replaced for history in data.histories)
    share += f"; {plural(replaced, 'other request')} replaced by retries" if replaced else ""
    share += f"; {data.copied:,} taken from other scopes" if data.copied else ""
    open_jobs = sum(history.end_state is EndState.OPEN for history in data.histories)
    no_open_jobs = "all have ended" if data.histories else "none yet"
    usage = sum((entry.usage for entry in models), Usage(0, 0))
    cards = [
        {"name": "Answered", "value": f"{data.answered:,}", "note": share, "colour": "good"},
        {
            "name": "Failed",
            "value": f"{data.failed:,}",
            "note": "no answer so far" if data.failed else "no request has failed for good",
            "colour": "bad" if data.failed else "",
        },
        {
            "name": "Jobs",
            "value": f"{len(data.histories):,}",
            "note": f"{open_jobs:,} open, with {plural(data.pending, 'request')}" if open_jobs else no_open_jobs,
            "colour": "working" if open_jobs else "",
        },
        {
            "name": "Tokens",
            "value": _format_short(usage.tokens_in + usage.tokens_out),
            "note": f"{_format_short(usage.tokens_in)} in, {_format_short(usage.tokens_out)} out",
            "colour": "",
        },
    ]
    return [*cards, *_savings_card(models)]


def _savings_card(models: Sequence[CostEntry]) -> list[dict[str, str]]:
    """Return the card of the savings; an empty list if no cost is known."""
    answers, unknown = (sum(getattr(entry, name) for entry in models) for name in ("answers", "unknown"))
    if answers <= unknown:
        return []
    texts = format_cost(sum_known(entry.cost for entry in models))
    part = f"; {answers - unknown:,} of {answers:,} answers have a price" if unknown else ""
    note = f"{texts.spent} spent instead of {texts.full_price}{part}"
    return [{"name": "Saved", "value": texts.saved, "note": note, "colour": "good"}]


def _images(chart: Chart) -> list[tuple[int, str]]:
    """Return the images as trusted markup: the drawing library escapes the texts of the ledger."""
    from markupsafe import Markup

    return [(width, Markup(image)) for width, image in chart.images]  # noqa: S704


def _phases(histories: Sequence[JobHistory]) -> list[dict[str, str]]:
    seen = {span.phase for history in histories for span in history.spans}
    return [{"name": phase.value, "colour": charts.PHASE_COLOURS[phase]} for phase in Phase if phase in seen]


def _ends(histories: Sequence[JobHistory]) -> list[dict[str, str]]:
    counts = Counter(history.end_state for history in histories)
    return [
        {
            "name": end.value,
            "colour": colour,
            "shape": charts.END_SHAPES[end],
            "count": f"{counts[end]:,}",
        }
        for end, colour in charts.END_COLOURS.items()
        if counts[end]
    ]


def _reason(reason: FailureReason, reasons: Sequence[FailureReason]) -> dict[str, object]:
    failure = Failure(reason.message, reason.status_code, reason.code)
    return {
        "count": f"{reason.count:,}",
        "share": f"{100 * reason.count / reasons[0].count:.2f}%",
        "labels": [str(label) for label in (reason.status_code, reason.code) if label],
        "message": _redact(reason.message),
        "advice": next_step(failure, reason.custom_ids[0], ANY_WAY),
    }


def _model(entry: CostEntry, entries: Sequence[CostEntry]) -> dict[str, object]:
    largest = max((other.usage.tokens_in + other.usage.tokens_out for other in entries), default=0) or 1
    cost = entry.cost
    return {
        "scope": entry.scope.label,
        "model": entry.model or "?",
        "answers": f"{entry.answers:,}",
        "tokens_in": _format_short(entry.usage.tokens_in),
        "tokens_out": _format_short(entry.usage.tokens_out),
        "share_in": f"{100 * entry.usage.tokens_in / largest:.2f}%",
        "share_out": f"{100 * entry.usage.tokens_out / largest:.2f}%",
        "share_spent": f"{100 * cost.spent / cost.full_price:.2f}%" if cost and cost.full_price else "",
        "spent": format_cost(cost).spent,
        "saved": format_cost(cost).saved,
    }


def _job(number: int, history: JobHistory) -> dict[str, str]:
    job = history.job
    return {
        "number": f"{number:,}",
        "batch": job.batch_id or ("flex" if job.is_flex else "synchronous" if job.is_synchronous else "no batch"),
        "scope": job.scope.label,
        "server": urlsplit(job.scope.base_url).hostname or "",
        "state": history.end_state.value if history.end_state is not EndState.OPEN else job.status,
        "colour": charts.END_COLOURS.get(history.end_state, "working"),
        "answered": f"{history.answered:,}/{job.requests:,}"
        + (f", {job.cut:,} cut" if job.cut else "")
        + (f", {job.replaced:,} replaced" if job.replaced else ""),
        "failed": f"{job.failed:,}",
        "planned": _format_minute(job.created_at),
        "took": duration(history.end - history.start),
        "error": _redact(job.error) if job.error else "",
    }


def _redact(message: str) -> str:
    """Return a message without keys and passwords, of at most 240 characters."""
    message = _PASSWORD.sub("//", _KEY.sub("sk-…", message))
    return message if len(message) <= _MESSAGE_CHARACTERS else f"{message[:_MESSAGE_CHARACTERS]}…"


def _format_period(histories: Sequence[JobHistory]) -> str:
    """Return the time of all jobs: `24 Nov 2026, 06:00 to 10:03 UTC, 4 h 03 min`; empty without jobs."""
    if not histories:
        return ""
    start, end = min(history.start for history in histories), max(history.end for history in histories)
    first, last = _format_minute(start), _format_minute(end)
    day, _, time_of_day = last.partition(", ")
    return f"{first} to {time_of_day if first.startswith(day) else last} {zone_name(end)}, {duration(end - start)}"


def _format_minute(seconds: float) -> str:
    moment = local(seconds)
    return f"{moment.day} {moment:%b %Y, %H:%M}"


def _format_short(number: int) -> str:
    """Return a number with a unit: `12.3M`, `45.6k`; numbers below 10,000 in full."""
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1_000 if unit == 'k' else size):,.1f}{unit}"
    return f"{number:,}"
