"""Scope, shards, answers and jobs for the tests of the ledger."""

from __future__ import annotations

from hashlib import md5

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.requests import Request, Shard, build_custom_id
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import Job, ScopeName

SCOPE = ScopeName("pipeline", "task", "https://api.example.com/v1/")
CHAT = "/v1/chat/completions"


def make_names(count: int, number: int = 0, start: int = 0) -> list[str]:
    """Return `custom_id`s that packs can have.

    Args:
        count: the number of `custom_id`s.
        number: the occurrence number of all.
        start: the first of the numbers whose digests they have.
    """
    return [build_custom_id(md5(str(place).encode()).hexdigest(), number) for place in range(start, start + count)]


def make_shard(*custom_ids: str) -> Shard:
    requests = [Request(custom_id, CHAT, "gpt-4o-mini", b"{}") for custom_id in custom_ids]
    return Shard(requests, sum(len(request.line()) for request in requests))


def make_answer(text: str) -> Answer:
    """Return an answer with three tokens in and five tokens out."""
    return Answer.of({"id": text, "usage": {"prompt_tokens": 3, "completion_tokens": 5}})


def plan_created_job(ledger: Ledger, *custom_ids: str) -> Job:
    """Plan a job and record its batch `batch_<id>`, which is being validated."""
    job, _ = ledger.jobs.plan(make_shard(*custom_ids))
    return ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), Batch(f"batch_{job.id}", "validating"))


def plan_ended_job(ledger: Ledger, *custom_ids: str) -> Job:
    """Plan a job and record the end of its batch."""
    job = plan_created_job(ledger, *custom_ids)
    return ledger.jobs.mark_ended(job, Batch(f"batch_{job.id}", "completed"))


def record(ledger: Ledger, job: Job, **outcomes) -> None:
    """Record outcomes of a job's requests; the keyword `a` means the request `a-0`."""
    ledger.requests.record(
        ledger.requests.request_ids(job), {f"{name}-0": outcome for name, outcome in outcomes.items()}
    )
