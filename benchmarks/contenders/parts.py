"""`OpenAIBatchLLM` in parts, each alone and one after the other, so that the sum says where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from openai import OpenAI

from benchmarks.meter import Meter, Task, measured
from benchmarks.questions import MODEL
from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Outcome, build_result_line
from distilabel_openai_batch.api.requests import Request, Shard, build_custom_id
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.scratch import Spool
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName

# As `jobs.py` records them.
_AT_ONCE = 1_000


def answer(task: Task, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Does what a request goes through, without a server, a buffer or an event loop."""
    llm = OpenAIBatchLLM(model=MODEL)
    llm.load()
    inputs = [[{"role": "user", "content": question}] for question in task.questions()]
    completion = _completion(task.base_url)
    parts: dict[str, float] = {}

    def part(name: str, do: Callable[[], Any]) -> Any:
        begun = time.process_time()
        done = do()
        parts[name] = time.process_time() - begun
        return done

    folder = Path(task.folder)
    with (
        closing(Spool(folder / "bodies")) as spool,
        closing(Ledger(folder / "ledger", ScopeName("", "", ""))) as ledger,
    ):

        def requests() -> list[Request]:
            made = []
            for call in calls:
                body = call.encode()
                custom_id = build_custom_id(call.digest(task.base_url, call.endpoint, body), 0)
                made.append(Request(custom_id, call.endpoint, MODEL, spool.add(body)))
            return made

        def record() -> list[tuple[str, Outcome]]:
            kept: list[tuple[str, Outcome]] = []
            members = ledger.requests.row_ids(job)
            results = iter(JobResults(list(members), [file]))
            while some := list(islice(results, _AT_ONCE)):
                ledger.requests.record(members, dict(some))
                kept += some
            ledger.jobs.mark_collected(ended, MISSING_RESULT)
            ledger.requests.mark_delivered()
            return kept

        with meter:
            calls: list[APICall] = part("`OpenAILLM` makes its calls", lambda: list(llm._calls(inputs, 1, {})))
            asked = part("JSON, digests, bodies to the disk", requests)
            shard = Shard.of(asked)
            job, _ = part("the ledger: intent", lambda: ledger.jobs.plan(shard))
            part("the input file", lambda: _write(shard, folder / "input"))
            _write_results(asked, completion, folder / "output")
            batch = Batch("batch_1", "completed")
            created = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), batch)
            ended = ledger.jobs.mark_ended(created, batch)
            with (folder / "output").open("rb", buffering=0) as file:
                outcomes = part("results read, joined and recorded in the ledger", record)
            outputs = part("`OpenAILLM` reads its completions", lambda: _read(llm, inputs, outcomes))
    meter.more["parts"] = parts
    return outputs, [output["generations"][0] for output in outputs]


def _completion(base_url: str) -> dict[str, Any]:
    """One that the sandbox makes."""
    with OpenAI(base_url=base_url, api_key="sk-benchmark") as client:
        messages: Any = [{"role": "user", "content": "Why is the sky blue?"}]
        return client.chat.completions.create(model=MODEL, messages=messages, max_tokens=128).model_dump()


def _write(shard: Shard, path: Path) -> None:
    with path.open("wb") as file:
        for request in shard.requests:
            file.write(request.line())


def _write_results(requests: Sequence[Request], completion: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        for request in requests:
            file.write(build_result_line(request.custom_id, completion))


def _read(llm: OpenAIBatchLLM, inputs: Sequence[Any], outcomes: Sequence[tuple[str, Outcome]]) -> list[Any]:
    with gc_paused():
        return [llm._output(input, 1, {}, outcome) for input, (_, outcome) in zip(inputs, outcomes, strict=True)]


if __name__ == "__main__":
    measured(answer)
