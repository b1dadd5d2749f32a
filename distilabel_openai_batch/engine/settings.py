"""Settings of sessions, jobs and polls."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distilabel_openai_batch.api.azure_tokens import TokenProvider
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.extra_fields import NO_EXTRA_FIELDS, ExtraFields
from distilabel_openai_batch.api.retention import DEFAULT_RETENTION, Retention
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.cut_answers import OnTruncated
from distilabel_openai_batch.engine.deadlines import NO_DEADLINE, Deadline
from distilabel_openai_batch.engine.lanes import DEFAULT_LANES, LaneSettings
from distilabel_openai_batch.pricing.budget import NO_BUDGET, NoBudget

_POLL_SHARE_OF_AGE = 0.05

_WINDOW = re.compile(r"(\d+)([hd])")
_UNIT_SECONDS = {"h": 3_600.0, "d": 86_400.0}
# The only window of OpenAI. https://platform.openai.com/docs/api-reference/batch/create#batch-create-completion_window
_DEFAULT_WINDOW_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """Poll intervals that grow with the age of a job.

    A poll costs a request, and a pause delays the answers. The end of a job is noticed late by 5 % of the job's age,
    but by at least `shortest`, which exceeds 5 % for a job under 20 seconds, and by at most `longest`. On Azure
    `shortest` is 60 seconds by default.

    Attributes:
        shortest: seconds between two polls of a job, at least.
        longest: seconds between two polls of a job, at most. With 65, a job of 24 hours costs 1,415 polls.
    """

    shortest: float = 1.0
    longest: float = 65.0

    def interval(self, age: float) -> float:
        """Return the seconds until the next poll.

        Args:
            age: seconds since the job was created; a negative age, of clocks that disagree, counts as 0.

        Returns:
            A twentieth of the age, within `shortest` and `longest`; `shortest` counts if the two contradict.
        """
        return max(self.shortest, min(self.longest, age * _POLL_SHARE_OF_AGE))


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings of jobs.

    Attributes:
        completion_window: the window of the API (`"24h"`).
        schedule: the poll intervals.
        metadata: metadata of each batch, besides its key.
        wait: whether to wait for jobs to end.
        delete_files: whether to remove a job's files from the server once their content is in the ledger.
        window_binds: whether the server ends a job when its window closes. If not, a longer job is not cancelled.
    """

    completion_window: str
    schedule: PollSchedule
    metadata: Mapping[str, str]
    wait: bool = True
    delete_files: bool = False
    window_binds: bool = True

    def window_seconds(self, batch: Batch) -> float:
        """Return the seconds from a batch's creation to its expiry; infinity if nothing limits them.

        A batch with a status that nobody knows may have ended → its window always ends: after a day if it is unknown.
        """
        unlimited = float("inf") if batch.is_status_known else _DEFAULT_WINDOW_SECONDS
        if not self.window_binds and batch.is_status_known:
            return unlimited
        if batch.expires_at and batch.created_at and batch.expires_at > batch.created_at:
            return batch.expires_at - batch.created_at
        match = _WINDOW.fullmatch(self.completion_window)
        return float(match[1]) * _UNIT_SECONDS[match[2]] if match else unlimited


@dataclass(frozen=True, slots=True)
class SubmissionRun:
    """The part of a session in a submission, which one run submits and another one loads.

    Attributes:
        name: the name by which the submission is found again.
        waits: whether jobs are waited for.
        submits: whether requests without an answer are submitted.
        only_batches: ids of the batches that are read; empty for all batches of the submission.
    """

    name: str
    waits: bool
    submits: bool
    only_batches: Collection[str] = field(default=())


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """Rules by which requests are answered from the ledger, in batches or synchronously.

    Attributes:
        deadline: moment after which no batch is waited for.
        preflight: whether one request of each model is tried before the others are submitted.
        submits: whether requests are submitted at all; otherwise a request without an answer fails with the reason.
        only_batches: ids of the batches whose requests are answered; other requests fail as `OTHER_BATCH`. Empty for
            all batches.
        keeps_spent: whether an answer of an earlier run without text, whose limit was spent first, is the outcome of
            its request. If not, the request is submitted again.
    """

    deadline: Deadline = NO_DEADLINE
    preflight: bool = False
    submits: bool = True
    only_batches: frozenset[str] = frozenset()
    keeps_spent: bool = False


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Settings of a session.

    Attributes:
        base_url: the address of the server, `/v1` included; `None` for the SDK's default. On Azure, `/openai` stands in
            the place of `/v1`. The address may contain a password, and its query is sent with every call.
        api_key: the API key, sent to the server and nowhere else.
        headers: headers of every call.
        timeout: seconds that the server may be silent.
        patience: time to wait for a server that fails.
        max_requests: requests in an input file, at most.
        max_bytes: bytes in an input file, at most.
        max_attempts: jobs that one request is put into, at most.
        max_jobs: jobs in progress at once, at most.
        jobs: settings of jobs.
        ledger_dir: the directory of the ledger.
        compress_ledger: whether the ledger compresses new answers of batches.
        reuse_answers: whether a run takes answers that earlier runs received.
        reuse_from: the name of another scope whose answers a run takes; `None` for the run's own scope alone.
        deadline: moment after which no batch is waited for.
        lanes: the choice between batches, flex and the synchronous endpoint.
        preflight: whether one request of each model is tried before the others are submitted.
        run: the submission that the session takes part in; `None` outside a submission.
        azure_api_version: the version of Azure's API; `None` for servers with OpenAI's API.
        token_provider: returns a token of Microsoft Entra ID for each call, in place of the key; `None` for the key.
        budget: the limit of spending, for all sessions together.
        retention: the expiry of files on the server.
        extra_fields: extra fields of uploads and creations.
        on_truncated: the treatment of answers that the limit of tokens cut; `None` for endpoints without text.
        batch_api: the shape of the server's API, the name of an adapter; `None` for the shape of the host.
        endpoint_path: the server's paths of endpoints by OpenAI's paths, or one path for all endpoints.
        prices: the user's prices as a text, which each job records; `None` for list prices.
        fails_unmatched: whether the run ends before requests are submitted again whose earlier answers no longer match,
            or belong to another scope.
    """

    # distilabel's tracebacks show local variables → keep the secrets out of the `repr`.
    base_url: str | None = field(repr=False)
    api_key: str = field(repr=False)
    headers: Mapping[str, str] | None = field(repr=False)
    timeout: float
    patience: Patience
    max_requests: int
    max_bytes: int
    max_attempts: int
    max_jobs: int
    jobs: JobSettings
    ledger_dir: Path
    reuse_answers: bool
    deadline: Deadline = NO_DEADLINE
    lanes: LaneSettings = DEFAULT_LANES
    preflight: bool = False
    run: SubmissionRun | None = None
    azure_api_version: str | None = None
    token_provider: TokenProvider | None = field(default=None, repr=False)
    budget: NoBudget = NO_BUDGET
    retention: Retention = DEFAULT_RETENTION
    extra_fields: ExtraFields = NO_EXTRA_FIELDS
    on_truncated: OnTruncated | None = None
    prices: str | None = None
    reuse_from: str | None = None
    compress_ledger: bool = False
    fails_unmatched: bool = False
    batch_api: str | None = None
    endpoint_path: Mapping[str, str] | str | None = None

    def endpoint(self, path: str) -> str:
        """Return the server's path of an OpenAI endpoint; Azure's paths have no version in front."""
        if self.endpoint_path:
            return self.endpoint_path if isinstance(self.endpoint_path, str) else self.endpoint_path.get(path, path)
        return path.removeprefix("/v1") if self.azure_api_version else path

    @property
    def submits(self) -> bool:
        """Return whether requests without an answer are submitted."""
        return self.run is None or self.run.submits

    @property
    def retries_cut(self) -> bool:
        """Return whether cut and empty answers are requested again with a higher limit."""
        return self.on_truncated == "retry" and not (self.run and self.run.only_batches)

    @property
    def dispatch(self) -> DispatchSettings:
        """Return the rules by which requests are answered."""
        return DispatchSettings(
            deadline=self.deadline,
            preflight=self.preflight,
            submits=self.submits,
            only_batches=frozenset(self.run.only_batches if self.run else ()),
            keeps_spent=self.retries_cut,
        )
