"""States of jobs and requests, and the records that the ledger returns to the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from distilabel_openai_batch.api.outcomes import Outcome

NOT_FOUND = "not found"
"""The status of a job whose batch the server does not know, at least with the API key in use."""

NOT_SENT = "not sent"
"""The status of a job that stands for rows that no request was sent for."""

REUSED = "reused"
"""The status of a job that stands for answers of another scope. The job has no batch, and was not billed."""


# States of a request: the words in the file's column `requests.state`.
PENDING = "asked"
"""A job holds the request, or held the request until the job was dropped."""
ANSWERED = "answered"
"""The ledger holds the answer. The state is final."""
FAILED = "failed"
"""The last job ended without an answer to the request. A further job may hold the request again."""


class JobState(str, Enum):
    """State of a job. The values are the words in the file's column `jobs.state`."""

    SYNCHRONOUS = "synchronous"
    """The synchronous endpoint answers the requests one by one; the job has no batch."""
    PLANNED = "planned"
    """The intent is on the disk; an upload may have begun."""
    UPLOADED = "uploaded"
    """The input file is on the server; the creation of a batch may have begun."""
    CREATED = "created"
    """The server has the batch."""
    ENDED = "ended"
    """The batch has a final status; the ledger may hold a part of the results."""
    COLLECTED = "collected"
    """The ledger holds all results."""
    DROPPED = "dropped"
    """No batch will answer the requests; a further job may hold them."""


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.SYNCHRONOUS: frozenset({JobState.COLLECTED, JobState.DROPPED}),
    JobState.PLANNED: frozenset({JobState.UPLOADED, JobState.CREATED, JobState.DROPPED}),
    JobState.UPLOADED: frozenset({JobState.CREATED, JobState.DROPPED}),
    # CREATED → DROPPED happens only on an explicit `forget --lost`.
    JobState.CREATED: frozenset({JobState.ENDED, JobState.DROPPED}),
    # If the server's validation rejected the batch for a passing reason, the same file is submitted again.
    JobState.ENDED: frozenset({JobState.COLLECTED, JobState.UPLOADED, JobState.DROPPED}),
    JobState.COLLECTED: frozenset(),
    JobState.DROPPED: frozenset(),
}
"""The states that may follow each state. `docs/design.md` draws the graph."""


OPEN_STATES = tuple(state for state, following in TRANSITIONS.items() if following)
"""The states that a further state may follow."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job's row in the ledger.

    Attributes:
        id: the row's id.
        key: the value of the batch's metadata key `KEY_METADATA`, by which the server's batch is found again.
        owner: the id of the session that runs the job, or ran the job when the session died.
        state: the job's state.
        endpoint: the path that the requests go to, as `/v1/chat/completions`.
        requests: the number of requests.
        intended_at: the moment of the plan, in seconds since the epoch.
        input_file_id: the server's id of the input file; `None` before the upload is recorded.
        batch_id: the server's id of the batch; `None` before the creation is recorded.
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
class SubmittedJob:
    """A job that has a batch, for `SubmitBatch`'s rows.

    Attributes:
        batch_id: the server's id of the batch.
        requests: the number of requests.
        bytes: the size of the input file; 0 for a job that another machine planned.
        status: the batch's status at the last poll.
    """

    batch_id: str
    requests: int
    bytes: int
    status: str


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request that the ledger holds.

    Attributes:
        job: the id of the last job that held the request.
        outcome: the answer or the failure; `None` while the request is pending.
    """

    job: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class KnownRequests:
    """Requests of one job that the ledger holds.

    Attributes:
        job: the id of the last job that held the requests.
        custom_ids: the `custom_id`s of the requests.
        outcomes: the answer or the failure of each request; `None` while the requests are pending.
    """

    job: int
    custom_ids: Sequence[str]
    outcomes: Sequence[Outcome] | None


@dataclass(frozen=True, slots=True)
class ScopeName:
    """Name of a scope: the pipeline and the task that submit requests, and the server.

    Attributes:
        pipeline: the pipeline's name; the script's name outside a pipeline, or the run's name of a submission.
        task: the task's name; empty outside a pipeline and for a submission.
        base_url: the server's base URL.
    """

    pipeline: str
    task: str
    base_url: str

    @property
    def label(self) -> str:
        """The scope's name on the command line: `pipeline/task`, or a script's or submission's name."""
        return f"{self.pipeline}/{self.task}" if self.task else self.pipeline

    @property
    def full_label(self) -> str:
        """A name that no other scope of the same server has: `pipeline//task`, or `name//` without a task."""
        return f"{self.pipeline}//{self.task}"
