"""Stages of `OpenAIBatchLLM`, each run alone, to measure the CPU time of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from openai import OpenAI

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MODEL
from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Outcome, build_result_line
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.engine.calls import APICall, CallGroup, Calls
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.packs import name_first_occurrences
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.plugin.call_capture import capture_calls, read_plain_outputs

# Number of results that the package records in one transaction.
_RESULTS_PER_COMMIT = 1_000

Result = TypeVar("Result")


class Stopwatch:
    """CPU time of named stages.

    Attributes:
        seconds: seconds of CPU time by stage, in the order of the stages.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, stage: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function`, record its CPU time under `stage`, and return its result."""
        started = time.process_time()
        result = function(*arguments)
        self.seconds[stage] = time.process_time() - started
        return result


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Run every stage of a request without a server, a buffer and an event loop; all answers are the same."""
    llm = OpenAIBatchLLM(model=MODEL)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in workload.questions()]
    completion = _completion(workload.base_url)
    folder = Path(workload.folder)
    stopwatch = Stopwatch()
    with (
        closing(Ledger(folder / "ledger", ScopeName("", "", ""))) as ledger,
        meter,
    ):
        calls = stopwatch.run("calls", _build_calls, llm, inputs)
        requests = stopwatch.run("texts and digests", _make_requests, calls, workload.base_url)
        shard = Shard.of(requests)
        job, _ = stopwatch.run("ledger: plan of the job", ledger.jobs.plan, shard)
        stopwatch.run("input file", _write_input, shard, folder / "input")
        _write_results(requests, completion, folder / "output")
        batch = Batch("batch_1", "completed")
        created = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), batch)
        ended = ledger.jobs.mark_ended(created, batch)
        with (folder / "output").open("rb", buffering=0) as file:
            outcomes = stopwatch.run(
                "results read, matched and recorded in the ledger", _record_results, ledger, job, ended, file
            )
        outputs = stopwatch.run("completions", _read_outputs, llm, inputs, outcomes)
    meter.more["parts"] = stopwatch.seconds
    return outputs, [output["generations"][0] for output in outputs]


def _completion(base_url: str) -> dict[str, Any]:
    """Return a completion of the sandbox."""
    with OpenAI(base_url=base_url, api_key="sk-benchmark") as client:
        messages: Any = [{"role": "user", "content": "Why is the sky blue?"}]
        return client.chat.completions.create(model=MODEL, messages=messages, max_tokens=128).model_dump()


def _build_calls(llm: OpenAIBatchLLM, inputs: Sequence[Any]) -> Calls:
    return list(capture_calls(llm, inputs, 1, {}, llm._adapt))


def _make_requests(calls: Calls, base_url: str) -> list[Request]:
    requests: list[Request] = []
    for group in calls:
        if isinstance(group, CallGroup):
            endpoint = group.like.endpoint
            digests, bodies = group.template.fill(group.values, base_url, endpoint)
        else:
            assert isinstance(group, APICall)
            body, digest = group.build(base_url, group.endpoint)
            endpoint, digests, bodies = group.endpoint, bytes.fromhex(digest), [body]
        names = name_first_occurrences(digests)
        requests += [Request(name, endpoint, MODEL, body) for name, body in zip(names, bodies, strict=True)]
    return requests


def _write_input(shard: Shard, path: Path) -> None:
    with path.open("wb") as file:
        for request in shard.requests:
            file.write(request.line())


def _write_results(requests: Sequence[Request], completion: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        for request in requests:
            file.write(build_result_line(request.custom_id, completion))


def _record_results(ledger: Ledger, job: Any, ended: Any, file: Any) -> list[tuple[str, Outcome]]:
    """Record the results in `file` like the package does, and return them with their custom_ids."""
    recorded: list[tuple[str, Outcome]] = []
    with gc_paused():
        members = ledger.requests.request_ids(job)
        results = iter(JobResults(list(members), [file]))
        while group := list(islice(results, _RESULTS_PER_COMMIT)):
            ledger.requests.record(members, dict(group))
            recorded += group
    ledger.jobs.mark_collected(ended, MISSING_RESULT)
    ledger.requests.mark_delivered(list(members), began_at=job.intended_at)
    return recorded


def _read_outputs(llm: OpenAIBatchLLM, inputs: Sequence[Any], outcomes: Sequence[tuple[str, Outcome]]) -> list[Any]:
    with gc_paused():
        outputs = read_plain_outputs(llm, [outcome for _, outcome in outcomes], 1)
        return [
            plain or llm._output(input, 1, {}, outcome)
            for input, (_, outcome), plain in zip(inputs, outcomes, outputs, strict=True)
        ]


if __name__ == "__main__":
    run_contender(answer)
