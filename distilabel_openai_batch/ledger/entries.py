"""Records that `LedgerReader` returns: jobs, scopes, failures and answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from distilabel_openai_batch.api.batches import FINAL_STATUSES
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.service_tiers import FLEX
from distilabel_openai_batch.api.usage import NO_USAGE, Usage
from distilabel_openai_batch.ledger.states import NOT_FOUND, OPEN_STATES, REUSED, JobState, ScopeName

# Custom_ids per reason: enough to find a few of the requests in the log or on the server.
_CUSTOM_IDS_LISTED = 3

INTERRUPTED = "interrupted"
"""The status of a job whose run died before a batch was recorded. The next run searches the server for the batch."""

STATES_WITHOUT_BATCH = (JobState.SYNCHRONOUS, JobState.PLANNED, JobState.UPLOADED)
"""The open states of a job whose batch, if any, the ledger does not have."""


@dataclass(frozen=True, slots=True)
class JobEntry:
    """A job, for display.

    Attributes:
        scope: the job's scope.
        batch_id: the server's id of the batch; `None` for a job without a batch.
        state: the job's state.
        status: the batch's status at the last poll; without a batch the job's state, or `INTERRUPTED`.
        endpoint: the path that the requests go to, as `/v1/chat/completions`.
        model: the model that the requests name; empty for a job that another machine planned.
        requests: the number of requests.
        answered: the number of requests with an answer that lacks no generation.
        failed: the number of requests that this job leaves without such an answer, except replaced ones.
        pending: the number of requests without an outcome in the ledger.
        tokens_in, tokens_out: tokens billed for the answers in the ledger.
        tokens_cached: the part of `tokens_in` that was billed at the cached price.
        bytes: the size of the input file; 0 for a job that another machine planned.
        created_at: the moment of the plan, in seconds since the epoch.
        ended_at: the moment at which a run saw the job's end, in seconds since the epoch; `None` before.
        input_file_id: the server's id of the input file; `None` before the upload is recorded.
        error: the server's reason to reject the batch, or the reason of the drop.
        answered_by: the model that an answer names; empty without an answer.
        long_usages: the usage of each request whose prompt exceeds `LONG_PROMPT`, which some models bill higher.
        cut: the number of answers that the limit of tokens cut, except replaced ones.
        tokens_written: the part of `tokens_in` that the server wrote to its cache.
        tokens_reasoning: the part of `tokens_out` that was spent on reasoning.
        prices: the user's prices of the run that planned the job, as a text; `None` for list prices.
        billed: the usage that the server's batch object shows; `None` if it shows none.
        usage_by_tier: service tiers with a price of their own, and the part of the tokens that each tier billed.
        replaced: the number of requests whose row got the outcome of a retry, which is another request.
        replaced_failures: the number of requests among them without an answer, or with one that lacks a generation.
        finished_at: the moment at which the batch got its final status, on the server's clock; `None` if the server
            reported no moment.
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
    pending: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    bytes: int
    created_at: float
    ended_at: float | None
    input_file_id: str | None
    error: str | None
    answered_by: str
    long_usages: tuple[Usage, ...] = ()
    cut: int = 0
    tokens_written: int = 0
    tokens_reasoning: int = 0
    prices: str | None = None
    billed: Usage | None = None
    usage_by_tier: tuple[tuple[str, Usage], ...] = ()
    replaced: int = 0
    replaced_failures: int = 0
    finished_at: float | None = None

    @property
    def end_at(self) -> float | None:
        """The moment of the job's end, in seconds since the epoch; `None` for an open job.

        A run that did not wait sees the end late, so the server's moment counts, if it lies within the job's time.
        """
        if self.finished_at and self.created_at <= self.finished_at <= (self.ended_at or self.finished_at):
            return self.finished_at if self.ended_at or self.has_ended else None
        return self.ended_at

    @property
    def done(self) -> int:
        """The number of requests with an outcome, in the ledger or at the server."""
        return min(self.requests, self.answered + self.failed + self.replaced_failures)

    @property
    def usage(self) -> Usage:
        """The tokens billed for the answers in the ledger."""
        counts = (self.tokens_in, self.tokens_out, self.tokens_cached, self.tokens_written, self.tokens_reasoning)
        return Usage(*counts, self.long_usages)

    @property
    def unaccounted(self) -> Usage:
        """The tokens that the server billed for a collected batch, and that no answer in the ledger has."""
        if self.billed is None or self.state is not JobState.COLLECTED:
            return NO_USAGE
        return self.billed.beyond(self.usage)

    @property
    def is_synchronous(self) -> bool:
        """`True` if the synchronous endpoint answers or answered the requests."""
        if self.state is JobState.SYNCHRONOUS:
            return True
        if self.is_reused:
            return False
        return not self.batch_id and (self.state is JobState.COLLECTED or bool(self.answered))

    @property
    def is_flex(self) -> bool:
        """`True` if the flex tier answered requests, at the price of a batch."""
        return any(tier == FLEX for tier, _ in self.usage_by_tier)

    @property
    def is_billed(self) -> bool:
        """`True` if the job has billed answers, usable or not, in the ledger or not."""
        unaccounted = self.unaccounted
        has_tokens = (
            self.failed + self.replaced_failures and self.tokens_in + self.tokens_out
        ) or unaccounted.tokens_in + unaccounted.tokens_out
        return not self.is_reused and bool(self.answered or has_tokens)

    @property
    def is_reused(self) -> bool:
        """`True` if the job stands for answers of another scope, which that scope's jobs were billed for."""
        return self.status == REUSED

    @property
    def copied(self) -> int:
        """The number of usable answers that were taken from another scope, and that no retry replaced."""
        return max(0, self.answered - self.replaced + self.replaced_failures) if self.is_reused else 0

    @property
    def is_interrupted(self) -> bool:
        """`True` if the job's run died, and the ledger has no batch of the job."""
        return self.status == INTERRUPTED

    @property
    def is_open(self) -> bool:
        """`True` if the job is in progress, or has ended and is not collected.

        An ended job without pending requests is not open: its run died between the last record and `mark_collected`.
        """
        is_due = self.state is not JobState.ENDED or bool(self.pending)
        return self.state in OPEN_STATES and is_due and not self.is_interrupted

    @property
    def has_ended(self) -> bool:
        """`True` if the batch has a final status, or is gone from the server."""
        return self.status in FINAL_STATUSES or self.status == NOT_FOUND

    @property
    def uncollected(self) -> int:
        """The number of answers that the server counts and the ledger does not have yet."""
        return max(0, min(self.pending, self.answered - self._recorded))

    @property
    def uncollected_failures(self) -> int:
        """The number of failures that the server counts and the ledger does not have yet."""
        return max(0, min(self.pending, self.done - self._recorded) - self.uncollected)

    @property
    def _recorded(self) -> int:
        return max(0, self.requests - self.pending)


@dataclass(frozen=True, slots=True)
class JobTimeline:
    """Moments of a batch's statuses, and counts at polls. All moments are in seconds since the epoch.

    Attributes:
        in_progress_at, finalizing_at, cancelling_at: the moment the status began, on the server's clock; `None` if the
            server reported no moment.
        finished_at: the moment the final status began, on the server's clock; `None` if the server reported no moment.
        polls: triples of a moment, on the run's clock, and the numbers of completed and failed requests.
    """

    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    finished_at: float | None = None
    polls: tuple[tuple[float, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """A scope with the counts of its requests.

    Attributes:
        id: the id of the scope's row.
        name: the scope's name.
        answered, failed, pending: the number of requests in each state; an answer that lacks a generation has failed.
        tokens_in, tokens_out: tokens billed for the answers.
        replaced: the number of requests with an outcome that a retry replaced; they count in no state.
    """

    id: int
    name: ScopeName
    answered: int
    failed: int
    pending: int
    tokens_in: int
    tokens_out: int
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """Numbers of requests of several scopes. A request that several jobs have held counts once.

    A request that a retry replaced counts in `replaced` alone, since its row has the outcome of the retry.

    Attributes:
        requests: the number of requests.
        answered: the number of answered requests, with the answers that the server counts in open jobs.
        failed: the number of requests whose last outcome is a failure, with the failures that the server counts.
        replaced: the number of requests that a retry replaced.
        copied: the number of answers among them that were taken from another scope, whose jobs were billed.
    """

    requests: int
    answered: int
    failed: int
    replaced: int = 0
    copied: int = 0

    @classmethod
    def of(cls, scopes: Iterable[ScopeEntry], jobs: Iterable[JobEntry]) -> RequestTotals:
        """Return the totals of scopes.

        Args:
            scopes: the scopes.
            jobs: all jobs of the scopes.
        """
        entries, all_jobs = list(scopes), list(jobs)
        answered, failed, pending = (
            sum(getattr(entry, name) for entry in entries) for name in ("answered", "failed", "pending")
        )
        open_jobs = [job for job in all_jobs if job.is_open]
        return cls(
            answered + failed + pending,
            answered + sum(job.uncollected for job in open_jobs),
            failed + sum(job.uncollected_failures for job in open_jobs),
            sum(entry.replaced for entry in entries),
            sum(job.copied for job in all_jobs),
        )

    def without_copies(self) -> RequestTotals:
        """Return the totals of the requests that the scopes submitted themselves."""
        return replace(
            self, requests=self.requests - self.copied, answered=max(0, self.answered - self.copied), copied=0
        )


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A request without an answer, or with an answer that lacks a generation.

    Attributes:
        scope: the request's scope.
        custom_id: the request's id in the input file.
        batch_id: the last batch that held the request; `None` if its last job had no batch.
        status_code: the HTTP status code of the request; `None` if the server returned none.
        code: the API's error code.
        message: the API's error message.
        attempts: the number of jobs that have held the request; 0 for a row that no request was sent for.
        failed_at: the moment at which the last of these jobs ended, in seconds since the epoch.
        is_of_last_run: whether the last run of the scope that had a job also had this job.
        prompt: the start of the prompt; empty if the run died, or an earlier release recorded the failure.
        run_at: the begin of the run, in seconds since the epoch; the plan of its first job if the run died.
        is_replaced: whether the row got the outcome of a retry, which is another request.
    """

    scope: ScopeName
    custom_id: str
    batch_id: str | None
    status_code: int | None
    code: str | None
    message: str
    attempts: int
    failed_at: float = 0.0
    is_of_last_run: bool = True
    prompt: str = ""
    run_at: float = 0.0
    is_replaced: bool = False

    @property
    def is_current(self) -> bool:
        """`True` if a row of the last run has this failure."""
        return self.is_of_last_run and not self.is_replaced


@dataclass(slots=True)
class FailureReason:
    """Failures with the same status code and error code, all replaced by retries or none of them.

    Attributes:
        status_code, code: the status code and error code of all failures of the group.
        message: the message of the first failure.
        custom_ids: the `custom_id`s of the first three failures.
        prompts: the starts of their prompts; empty texts for unknown ones.
        count: the number of failures.
        last_at: the moment of the latest failure, in seconds since the epoch.
        is_replaced: whether the rows got the outcomes of retries.
    """

    status_code: int | None
    code: str | None
    message: str
    custom_ids: list[str] = field(default_factory=list)
    count: int = 0
    last_at: float = 0.0
    prompts: list[str] = field(default_factory=list)
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """A request's answer.

    Attributes:
        custom_id: the request's id in the input file.
        batch_id: the batch that answered; `None` for an answer of the synchronous endpoint.
        answer: the answer.
        answered_at: the moment at which a run saw the end of the answer's job, in seconds since the epoch.
        run_at: the begin of the last run that used the answer, in seconds since the epoch; `None` if no run did.
        question: the prompt of the request; `None` if the prompt is unknown.
        scope: the label of the request's scope.
        is_replaced: whether the row got the answer of a retry, which is another request.
    """

    custom_id: str
    batch_id: str | None
    answer: Answer
    answered_at: float | None = None
    run_at: float | None = None
    question: str | None = None
    scope: str = ""
    is_replaced: bool = False


def group_failures(failures: Iterable[FailureEntry]) -> list[FailureReason]:
    """Group failures by status code and error code, and replaced ones apart, the most frequent reason first."""
    found: dict[tuple[int | None, str | None, bool], FailureReason] = {}
    for failure in failures:
        kind = (failure.status_code, failure.code, failure.is_replaced)
        reason = FailureReason(failure.status_code, failure.code, failure.message, is_replaced=failure.is_replaced)
        reason = found.setdefault(kind, reason)
        reason.count += 1
        reason.last_at = max(reason.last_at, failure.failed_at)
        if len(reason.custom_ids) < _CUSTOM_IDS_LISTED:
            reason.custom_ids.append(failure.custom_id)
            reason.prompts.append(failure.prompt)
    return sorted(found.values(), key=lambda reason: -reason.count)
