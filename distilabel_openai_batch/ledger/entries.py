"""Entries of the ledger as readers see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from distilabel_openai_batch.api.batches import FINAL_STATUSES
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.states import LOST, OPEN_STATES, JobState, ScopeName

_CUSTOM_IDS_NAMED = 3

INTERRUPTED = "interrupted"
"""The status of a job whose run is gone before it was told of a batch. The next run finds out whether there is one."""


_BEFORE_ITS_BATCH = (JobState.SYNCHRONOUS, JobState.PLANNED, JobState.UPLOADED)


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job as the ledger has it.

    Attributes:
        scope: who asked whom.
        batch_id: the server's id of its batch, if it has one.
        state: where it is in its life.
        status: the batch's, as it was seen last; where it has none the job's state, or `INTERRUPTED`.
        endpoint: the path that its requests go to.
        model: the model that is asked; empty where another machine made the job.
        requests: how many it has.
        answered: how many of them have an answer.
        failed: how many have none, and will have none from this job.
        asked: how many the ledger has no outcome of.
        tokens_in, tokens_out: tokens billed for the answers that are here.
        tokens_cached: those of the tokens in that the server had in its cache.
        bytes: the size of its input file; 0 where another machine wrote it.
        created_at: when it was planned, in seconds since the epoch.
        ended_at: when it was seen to have ended, in seconds since the epoch; `None` before that.
        input_file_id: the server's id of its input file, once it is known.
        error: why the server did not accept it.
        answered_by: the model that answered, by the name that an answer has for it; empty where there is none.
        long: the tokens of each answer to a prompt that may have a price of its own.
    """

    scope: ScopeName
    batch_id: str | None
    state: JobState
    status: str
    endpoint: str
    model: str
    requests: int
    answered: int
    failed: int
    asked: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    bytes: int
    created_at: float
    ended_at: float | None
    input_file_id: str | None
    error: str | None
    answered_by: str
    long: tuple[Usage, ...] = ()

    @property
    def is_synchronous(self) -> bool:
        """Whether its requests are, or were, asked one by one, which is billed in full."""
        return self.state is JobState.SYNCHRONOUS or (not self.batch_id and bool(self.answered))

    @property
    def is_interrupted(self) -> bool:
        """Whether nobody works on it: its run is gone, and the ledger knows of no batch."""
        return self.status == INTERRUPTED

    @property
    def is_open(self) -> bool:
        """Whether it is under way, or has ended and was not collected.

        A run that died may leave a job uncollected of which nothing is missing.
        """
        is_due = self.state is not JobState.ENDED or bool(self.asked)
        return self.state in OPEN_STATES and is_due and not self.is_interrupted

    @property
    def has_ended(self) -> bool:
        """Whether its batch will not change any more."""
        return self.status in FINAL_STATUSES or self.status == LOST


@dataclass(frozen=True, slots=True)
class Course:
    """How a job went on, as far as somebody looked. Moments are seconds since the epoch, on the server's clock.

    Attributes:
        in_progress_at, finalizing_at, cancelling_at: when it came to be so; `None` where that is not known.
        finished_at: when it came to the status that does not change any more.
        looks: when it had so many requests completed, and so many failed, on the clock of who looked.
    """

    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    finished_at: float | None = None
    looks: tuple[tuple[float, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """A scope, and what became of its requests.

    Attributes:
        id: the ledger's number.
        name: who asked whom.
        answered, failed, asked: requests in each state.
        tokens_in, tokens_out: tokens billed for the answers.
    """

    id: int
    name: ScopeName
    answered: int
    failed: int
    asked: int
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A request without an answer.

    Attributes:
        scope: who asked whom.
        custom_id: what it is known by.
        batch_id: the batch that it was last in, if it was in one.
        status_code: HTTP status code of the request, `None` where it was never answered.
        code: the API's error code.
        message: the API's own words.
        attempts: the jobs that it was in.
    """

    scope: ScopeName
    custom_id: str
    batch_id: str | None
    status_code: int | None
    code: str | None
    message: str
    attempts: int


@dataclass(slots=True)
class Reason:
    """Failures that have the same status and code.

    Attributes:
        status_code, code: those.
        message: the first one's.
        custom_ids: of the first few.
        count: how many there are.
    """

    status_code: int | None
    code: str | None
    message: str
    custom_ids: list[str] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """A request's answer.

    Attributes:
        custom_id: what the request is known by.
        batch_id: the batch that answered it; `None` where it was asked synchronously.
        answer: what the model said.
    """

    custom_id: str
    batch_id: str | None
    answer: Answer


def reasons(failures: Iterable[FailureEntry]) -> list[Reason]:
    """Groups failures by status and code, the most frequent reason first."""
    found: dict[tuple[int | None, str | None], Reason] = {}
    for failure in failures:
        kind = (failure.status_code, failure.code)
        reason = found.setdefault(kind, Reason(*kind, failure.message))
        reason.count += 1
        if len(reason.custom_ids) < _CUSTOM_IDS_NAMED:
            reason.custom_ids.append(failure.custom_id)
    return sorted(found.values(), key=lambda reason: -reason.count)
