"""The books of a sandbox: what was asked of it, what it answered, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of the API.

    Attributes:
        name: such as `batches.create`, or `unknown`.
        method: the HTTP method.
        path: the path, without the query.
        status: the HTTP status of the reply, 0 if there was none.
        time: when it came in, in seconds since the epoch.
        query: the query, such as `limit=100&after=batch_1`.
    """

    name: str
    method: str
    path: str
    status: int
    time: float
    query: str = ""


@dataclass(frozen=True)
class Interval:
    """The time in which a batch was in flight.

    Attributes:
        batch_id: the batch.
        start: when it was created, in seconds since the epoch.
        end: when it ended, or `None` while it has not.
    """

    batch_id: str
    start: float
    end: float | None


@dataclass(frozen=True)
class Books:
    """What a sandbox knows about what it did.

    Attributes:
        batches: every batch object, oldest first, with `custom_ids` of its requests (empty if it failed validation).
        billed: `custom_id` → how many requests with it were answered with 200 in batches.
        billed_bodies: SHA-256 of the body as JSON with sorted keys and without spaces → how many such requests were
            answered with 200 in batches.
        sync: how many synchronous calls were answered with 200.
        sync_bodies: as `billed_bodies`, of synchronous calls.
        intervals: when each batch was in flight, oldest first.
        max_jobs_in_flight: how many batches were in flight at the same time, at most.
        files: the file objects that are not deleted.
    """

    batches: list[dict[str, Any]]
    billed: dict[str, int]
    billed_bodies: dict[str, int]
    sync: int
    sync_bodies: dict[str, int]
    intervals: list[Interval]
    max_jobs_in_flight: int
    files: list[dict[str, Any]]


def most_at_once(intervals: Iterable[Interval]) -> int:
    """Returns how many intervals overlap at most; one that ends when another starts does not overlap it."""
    edges: list[tuple[float, int]] = []
    for interval in intervals:
        edges.append((interval.start, 1))
        if interval.end is not None:
            # A batch that took no time at all was in flight nevertheless.
            edges.append((max(interval.end, interval.start + 1e-6), -1))
    most = current = 0
    for _, step in sorted(edges):
        current += step
        most = max(most, current)
    return most
