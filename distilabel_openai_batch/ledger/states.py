"""States of jobs and requests, and the records that describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from distilabel_openai_batch.api.outcomes import Outcome


def label(scope: ScopeName) -> str:
    """What a scope is called on the command line: `pipeline/task`, or a script's name."""
    return f"{scope.pipeline}/{scope.task}" if scope.task else scope.pipeline


def in_full(scope: ScopeName) -> str:
    """What tells a scope from one with the same label: `pipeline//task`, or `name//` of a script or a submission."""
    return f"{scope.pipeline}//{scope.task}"


LOST = "not found"
"""The status of a job whose batch the server does not know, by this key at least."""


class JobState(str, Enum):
    """Where a job is in its life."""

    SYNCHRONOUS = "synchronous"
    """Its requests are asked one by one at the synchronous endpoint; it has no batch."""
    PLANNED = "planned"
    """It is intended: an upload may have been begun."""
    UPLOADED = "uploaded"
    """Its input file is on the server: a creation may have been begun."""
    CREATED = "created"
    """The server has the batch."""
    ENDED = "ended"
    """The batch will not change any more: its results may have been taken in part."""
    COLLECTED = "collected"
    """What it answered is in the ledger."""
    DROPPED = "dropped"
    """It came to nothing; its requests are free to be asked again."""


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.SYNCHRONOUS: frozenset({JobState.COLLECTED, JobState.DROPPED}),
    JobState.PLANNED: frozenset({JobState.UPLOADED, JobState.CREATED, JobState.DROPPED}),
    JobState.UPLOADED: frozenset({JobState.CREATED, JobState.DROPPED}),
    # A batch that the server has lost is only let go by who says so.
    JobState.CREATED: frozenset({JobState.ENDED, JobState.DROPPED}),
    # A batch that did not pass the server's validation may be created again from the same file.
    JobState.ENDED: frozenset({JobState.COLLECTED, JobState.UPLOADED, JobState.DROPPED}),
    JobState.COLLECTED: frozenset(),
    JobState.DROPPED: frozenset(),
}
"""What may follow a job's state. `docs/design.md` draws it."""


OPEN_STATES = tuple(state for state, following in TRANSITIONS.items() if following)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the ledger knows it.

    Attributes:
        id: the ledger's number.
        key: what its batch is found by on the server.
        owner: the session that runs it, or ran it when it died.
        state: where it is in its life.
        endpoint: the path that its requests go to.
        requests: how many it has.
        intended_at: when it was planned, in seconds since the epoch.
        input_file_id: the server's id of its input file, once it is known.
        batch_id: the server's id of its batch, once it is known.
    """

    id: int
    key: str
    owner: str
    state: JobState
    endpoint: str
    requests: int
    intended_at: float
    input_file_id: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is told of a job.

    Attributes:
        batch_id: the server's id of its batch.
        requests: how many it has.
        bytes: the size of its input file; 0 where another machine wrote it.
        status: the batch's, as it was seen last.
    """

    batch_id: str
    requests: int
    bytes: int
    status: str


@dataclass(frozen=True, slots=True)
class Known:
    """A request that was asked before.

    Attributes:
        job: the id of the job that it was last in.
        attempts: the jobs that it was in.
        outcome: what became of it; `None` while its job is under way.
        handed_over: whether a run that came to its end was given the answer.
    """

    job: int
    attempts: int
    outcome: Outcome | None
    handed_over: bool


@dataclass(frozen=True, slots=True)
class ScopeName:
    """Who asks whom.

    Attributes:
        pipeline: the pipeline's name, or the script's outside of one.
        task: the task's name; empty outside a pipeline.
        base_url: the server's address.
    """

    pipeline: str
    task: str
    base_url: str
