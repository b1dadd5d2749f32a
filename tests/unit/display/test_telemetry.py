"""Tests of `display.telemetry`, with OpenTelemetry's own readers in memory."""

from __future__ import annotations

import io
import sys

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Failure, build_result_line
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.display import telemetry
from distilabel_openai_batch.display.telemetry import TELEMETRY_ENV_NAME, OpenTelemetryObserver, telemetry_factories
from distilabel_openai_batch.errors import MissingSettingError
from distilabel_openai_batch.ledger.states import ScopeName

SCOPE = ScopeName("preferences", "generate", "https://api.openai.com/v1/")
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 10}
BODY = {"model": "gpt-4o-mini-2024-07-18", "usage": USAGE}


@pytest.fixture
def telemetry_data(monkeypatch):
    """Return an observer, its finished spans, and a function that reads its counters by name and attributes."""
    metrics_sdk = pytest.importorskip("opentelemetry.sdk.metrics", reason="the extra `telemetry` is not installed")
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = metrics_sdk.MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracer_provider)
    monkeypatch.setattr(trace, "get_tracer", tracer_provider.get_tracer)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meter_provider)
    monkeypatch.setattr(metrics, "get_meter", meter_provider.get_meter)
    monkeypatch.setattr(telemetry, "_load_providers", lambda: (trace, metrics))

    def read() -> dict[str, list]:
        [resource] = reader.get_metrics_data().resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name.partition(".")[2]: list(metric.data.data_points) for metric in scope.metrics}

    return OpenTelemetryObserver(SCOPE), exporter, read


def shard(requests: int) -> Shard:
    return Shard([Request(f"{n}", "/v1/chat/completions", "gpt-4o-mini", b"{}") for n in range(requests)], 100)


def results(requests: int) -> JobResults:
    lines = [build_result_line(f"{n}", BODY) for n in range(requests)]
    return JobResults([f"{n}" for n in range(requests)], [io.BytesIO(b"".join(lines))])


def test_a_job_is_a_span_from_the_creation_to_the_end_of_its_batch(telemetry_data):
    observer, exporter, _ = telemetry_data
    observer.on_job_created(Batch("batch_1", "validating", created_at=1_000.5), shard(3))
    for status in ("in_progress", "in_progress", "completed"):
        observer.on_polled(Batch("batch_1", status))
    observer.on_collected(Batch("batch_1", "completed", failed=1), results(2))
    [span] = exporter.get_finished_spans()
    assert (span.name, span.start_time, span.status.status_code.name) == ("batch job", 1_000_500_000_000, "UNSET")
    assert [event.name for event in span.events] == ["in_progress", "completed"]
    assert dict(span.attributes) == {
        "openai_batch.scope": "preferences/generate",
        "server.address": "api.openai.com",
        "openai_batch.id": "batch_1",
        "openai_batch.status": "completed",
        "openai_batch.requests": 3,
        "openai_batch.answers": 2,
        "openai_batch.failed": 1,
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.usage.input_tokens": 2_000,
        "gen_ai.usage.output_tokens": 20,
    }


def test_failed_and_continuing_jobs_end_their_spans_too(telemetry_data):
    observer, exporter, _ = telemetry_data
    for name in ("refused", "expired", "continuing"):
        observer.on_job_resumed(Batch(name, "in_progress"), 3)
    observer.on_batch_refused(Batch("refused", "failed"))
    observer.on_collected(Batch("expired", "expired"), results(0))
    observer.on_batch_refused(Batch("unknown", "failed"))
    observer.on_finished()
    spans = {span.attributes["openai_batch.id"]: span for span in exporter.get_finished_spans()}
    assert {name: span.status.status_code.name for name, span in spans.items()} == {
        "refused": "ERROR",
        "expired": "ERROR",
        "continuing": "UNSET",
    }
    assert spans["continuing"].attributes["openai_batch.continues"] is True


def test_requests_failures_tokens_and_dollars_are_counted(telemetry_data):
    pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
    observer, _, read = telemetry_data
    observer.on_requested(5)
    observer.on_answered(3)
    observer.on_reused(1)
    observer.on_retried(2)
    observer.on_failed(Failure("Odd.", 400, "invalid_prompt"), "1")
    observer.on_rejected(Failure("No."), "2")
    observer.on_job_created(Batch("batch_1", "validating"), shard(1))
    observer.on_collected(Batch("batch_1", "completed"), results(1))
    observer.on_sync_answered("gpt-4o-mini", Answer.of(BODY))
    observer.on_sync_answered("gpt-4o-mini", Failure("Busy.", 429))
    counters = read()
    sums = {name: sum(point.value for point in points) for name, points in counters.items()}
    assert {name: sums[name] for name in ("requests", "answers", "reused", "retries", "failures", "tokens")} == {
        "requests": 5,
        "answers": 3,
        "reused": 1,
        "retries": 2,
        "failures": 2,
        "tokens": 2_020,
    }
    assert {point.attributes["error.type"] for point in counters["failures"]} == {"invalid_prompt", "unknown"}
    batch, sync = sorted(counters["dollars"], key=lambda point: point.attributes["synchronous"])
    assert sync.value == pytest.approx(2 * batch.value)
    assert {point.attributes["openai_batch.scope"] for points in counters.values() for point in points} == {
        "preferences/generate",
    }


def test_without_the_extra_the_error_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    telemetry._load_providers.cache_clear()
    with pytest.raises(MissingSettingError, match=r"pip install 'distilabel-openai-batch\[telemetry\]'"):
        OpenTelemetryObserver(SCOPE)


def test_the_environment_adds_the_observer(monkeypatch):
    monkeypatch.delenv(TELEMETRY_ENV_NAME, raising=False)
    assert telemetry_factories() == ()
    monkeypatch.setenv(TELEMETRY_ENV_NAME, "1")
    assert telemetry_factories() == (OpenTelemetryObserver,)
