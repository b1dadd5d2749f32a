"""Traces and metrics of a run for OpenTelemetry: a span for each job, and counters of requests, tokens and dollars."""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome, is_billed, usage_of
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import MissingSettingError
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.price_book import PriceBook, default_own_prices
from distilabel_openai_batch.pricing.run_costs import RunCosts

TELEMETRY_ENV_NAME = "DISTILABEL_OPENAI_BATCH_TELEMETRY"
"""Environment variable whose value `1` adds an `OpenTelemetryObserver` to each session."""

HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[telemetry]'"
"""Command that installs OpenTelemetry with its exporter."""

_NAME = "distilabel_openai_batch"
_NANOSECONDS = 1_000_000_000

# A collector that does not answer delays the end of a step by this time.
_FLUSH_MILLISECONDS = 10_000


class OpenTelemetryObserver(Observer):
    """Observer that sends a run's jobs and numbers to OpenTelemetry.

    Pass the class to `add_observer`. The process's providers are used, if any are set. If none are, the exporters for
    OTLP over HTTP are set up, which read `OTEL_EXPORTER_OTLP_ENDPOINT` and the other variables of OpenTelemetry.

    Each job is a span `batch job`, from the creation of its batch to its end. The counters are
    `openai_batch.requests`, `.answers`, `.reused`, `.failures`, `.retries`, `.tokens` and `.dollars`.

    Args:
        scope: the scope of the session.
        price_book: the prices at the server; `None` for the list prices, and the prices of the environment.

    Raises:
        MissingSettingError: OpenTelemetry is not installed.
    """

    def __init__(self, scope: ScopeName, price_book: PriceBook | None = None) -> None:
        trace, metrics = _load_providers()
        self._trace = trace
        self._tracer = trace.get_tracer(_NAME)
        meter = metrics.get_meter(_NAME)
        units = dict.fromkeys(("requests", "answers", "reused", "failures", "retries"), "{request}")
        units |= {"tokens": "{token}", "dollars": "USD"}
        self._counters = {name: meter.create_counter(f"openai_batch.{name}", unit) for name, unit in units.items()}
        self._scope = {
            "openai_batch.scope": scope.label,
            "server.address": urlsplit(scope.base_url).hostname or scope.base_url,
        }
        self._price_book = price_book or PriceBook(scope.base_url, default_own_prices())
        self._spans: dict[str, Any] = {}
        self._statuses: dict[str, str] = {}
        self._models: dict[str, str] = {}

    def on_requested(self, requests: int) -> None:
        """Count requests that a caller waits for."""
        self._add("requests", requests)

    def on_answered(self, requests: int) -> None:
        """Count answers, of earlier runs too."""
        self._add("answers", requests)

    def on_reused(self, requests: int) -> None:
        """Count answers of earlier runs."""
        self._add("reused", requests)

    def on_retried(self, requests: int) -> None:
        """Count requests that are submitted again."""
        self._add("retries", requests)

    def on_resubmitted(self, requests: int) -> None:
        """Count answered requests that are submitted again."""
        self._add("retries", requests)

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        """Count a failed request by its codes."""
        self._add_failure(failure)

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        """Count an unusable answer by its code."""
        self._add_failure(failure)

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """Begin the span of a job."""
        self._models[batch.id] = shard.requests[0].model
        self._begin(batch, len(shard.requests))

    def on_job_resumed(self, batch: Batch, requests: int) -> None:
        """Begin the span of a job that an earlier run created."""
        self._begin(batch, requests)

    def on_polled(self, batch: Batch) -> None:
        """Record a change of a batch's status as an event of its span."""
        if (span := self._spans.get(batch.id)) and self._statuses.get(batch.id) != batch.status:
            self._statuses[batch.id] = batch.status
            span.set_attribute("openai_batch.status", batch.status)
            span.add_event(batch.status)

    def on_collected(self, batch: Batch, results: JobResults) -> None:
        """End the span of a job, and count its tokens and dollars."""
        requested = self._models.pop(batch.id, "")
        self._add_usage(results.model, requested, results.usage, is_sync=False)
        self._end(
            batch,
            {
                "gen_ai.response.model": results.model,
                "gen_ai.usage.input_tokens": results.usage.tokens_in,
                "gen_ai.usage.output_tokens": results.usage.tokens_out,
                "openai_batch.answers": results.answers,
            },
            batch.status == "completed",
        )

    def on_batch_refused(self, batch: Batch) -> None:
        """End the span of a job whose batch the server did not accept."""
        self._models.pop(batch.id, None)
        self._end(batch, {}, is_ok=False)

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """Count the tokens and dollars of a synchronous request."""
        if is_billed(outcome):
            answered_by = str(outcome.body.get("model") or "") if isinstance(outcome, Answer) else ""
            self._add_usage(answered_by, model, usage_of(outcome), is_sync=True)

    def on_finished(self) -> None:
        """End the spans of jobs that go on at the server, and export all."""
        for span in self._spans.values():
            span.set_attribute("openai_batch.continues", True)
            span.end()
        self._spans.clear()
        _flush()

    def _add(self, counter: str, amount: float, **attributes: str | bool) -> None:
        if amount:
            self._counters[counter].add(amount, {**self._scope, **attributes})

    def _add_failure(self, failure: Failure) -> None:
        attributes = {"error.type": failure.code or str(failure.status_code or "unknown")}
        if failure.status_code:
            attributes["http.response.status_code"] = str(failure.status_code)
        self._add("failures", 1, **attributes)

    def _add_usage(self, answered_by: str, requested: str, usage: Usage, is_sync: bool) -> None:
        attributes: dict[str, str | bool] = {"gen_ai.response.model": answered_by or requested, "synchronous": is_sync}
        kinds = {"input": usage.tokens_in, "output": usage.tokens_out}
        for kind, tokens in kinds.items():
            self._add("tokens", tokens, **attributes, **{"gen_ai.token.type": kind})
        costs = RunCosts(self._price_book)
        costs.add(answered_by, requested, usage, is_sync)
        if cost := costs.total():
            self._add("dollars", float(cost.spent), **attributes)

    def _begin(self, batch: Batch, requests: int) -> None:
        attributes: dict[str, Any] = {
            **self._scope,
            "openai_batch.id": batch.id,
            "openai_batch.status": batch.status,
            "openai_batch.requests": requests,
            "gen_ai.provider.name": "openai",
        }
        if model := self._models.get(batch.id):
            attributes["gen_ai.request.model"] = model
        start = int(batch.created_at * _NANOSECONDS) if batch.created_at else None
        self._statuses[batch.id] = batch.status
        self._spans[batch.id] = self._tracer.start_span("batch job", attributes=attributes, start_time=start)

    def _end(self, batch: Batch, attributes: dict[str, Any], is_ok: bool) -> None:
        self._statuses.pop(batch.id, None)
        span = self._spans.pop(batch.id, None)
        if span is None:
            return
        span.set_attributes({"openai_batch.status": batch.status, "openai_batch.failed": batch.failed, **attributes})
        if not is_ok:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, batch.reasons if batch.errors else None))
        span.end()


def telemetry_factories() -> tuple[type[OpenTelemetryObserver], ...]:
    """Return the observer's class if the environment asks for telemetry, and nothing otherwise."""
    return (OpenTelemetryObserver,) if os.getenv(TELEMETRY_ENV_NAME) == "1" else ()


@functools.cache
def _load_providers() -> tuple[Any, Any]:
    """Return OpenTelemetry's modules for traces and metrics, and set up exporters where no provider is set.

    Raises:
        MissingSettingError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        raise MissingSettingError(f"OpenTelemetry is not installed. Install it: {HOW_TO_INSTALL}") from None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _set_up_exporters(trace, metrics)
    return trace, metrics


def _set_up_exporters(trace: Any, metrics: Any) -> None:
    """Set providers that export by OTLP over HTTP, as the variables of OpenTelemetry say."""
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingSettingError(f"OpenTelemetry's exporter is not installed. Install it: {HOW_TO_INSTALL}") from None
    resource = Resource.create({} if os.getenv("OTEL_SERVICE_NAME") else {SERVICE_NAME: "distilabel-openai-batch"})
    tracer_provider = TracerProvider(resource=resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(
        MeterProvider(metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    )


def _flush() -> None:
    """Export all that is recorded: the process of a step ends without the exit functions of OpenTelemetry."""
    trace, metrics = _load_providers()
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if hasattr(provider, "force_flush"):
            provider.force_flush(_FLUSH_MILLISECONDS)
