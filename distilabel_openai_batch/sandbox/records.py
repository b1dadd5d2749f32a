"""Records of a sandbox's work: received calls, billed requests, running times of batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call of the API.

    Attributes:
        name: name of the SDK's method, such as `batches.create`; `unknown` if the SDK has none.
        method: HTTP method.
        path: path without the query.
        status: HTTP status of the reply; 0 if no reply was sent.
        time: time of arrival, in seconds since the epoch.
        query: query string, such as `limit=100&after=batch_1`.
    """

    name: str
    method: str
    path: str
    status: int
    time: float
    query: str = ""


@dataclass(frozen=True)
class Interval:
    """Time during which a batch was in flight.

    Attributes:
        batch_id: id of the batch.
        start: creation time of the batch, in seconds since the epoch.
        end: end time of the batch, in seconds since the epoch; `None` while the batch is unfinished.
    """

    batch_id: str
    start: float
    end: float | None


@dataclass(frozen=True)
class Books:
    """Accounts of a sandbox: batches, billed requests and stored files.

    Attributes:
        batches: every batch object, oldest first, with the `custom_ids` of the batch's requests (an empty list if
            validation failed), and the `extra_fields` of its creation.
        billed: number of requests answered with 200 in batches, by `custom_id`.
        billed_bodies: number of requests answered with 200 in batches, by the SHA-256 of the body, serialised as JSON
            with sorted keys and without spaces.
        sync: number of synchronous calls that were answered with 200.
        sync_bodies: number of synchronous calls that were answered with 200, by the same SHA-256 of the body.
        sync_tiers: number of synchronous calls that were answered with 200, by the service tier that answered.
        most_sync_in_flight: maximum number of synchronous calls that were in flight at the same time.
        intervals: running time of each batch, oldest first.
        max_jobs_in_flight: maximum number of batches that were in flight at the same time.
        files: file objects that are not deleted, with the `extra_fields` of their uploads.
    """

    batches: list[dict[str, Any]]
    billed: dict[str, int]
    billed_bodies: dict[str, int]
    sync: int
    sync_bodies: dict[str, int]
    sync_tiers: dict[str, int]
    most_sync_in_flight: int
    intervals: list[Interval]
    max_jobs_in_flight: int
    files: list[dict[str, Any]]


def max_overlap(intervals: Iterable[Interval]) -> int:
    """Return the maximum number of intervals that overlap; intervals that only touch do not overlap."""
    edges: list[tuple[float, int]] = []
    for interval in intervals:
        edges.append((interval.start, 1))
        if interval.end is not None:
            # A batch that starts and ends at the same time counts, so end its interval a little later.
            edges.append((max(interval.end, interval.start + 1e-6), -1))
    maximum = current = 0
    for _, step in sorted(edges):
        current += step
        maximum = max(maximum, current)
    return maximum
