"""Settings of sessions, jobs and polls."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.pricing.budget import UNLIMITED, Unlimited


@dataclass(frozen=True, slots=True)
class Run:
    """How a session takes part in a submission.

    Attributes:
        name: by which the submission is found again.
        waits: whether jobs are waited for.
        buys: whether what no job has answered is asked again.
        only: ids of the batches that are looked at; all of the submission's where there are none.
    """

    name: str
    waits: bool
    buys: bool
    only: Collection[str] = field(default=())


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What a session needs to know.

    Attributes:
        base_url: the server's address, `/v1` included; `None` for the SDK's default. On Azure `/openai` stands in the
            place of `/v1`.
        api_key: sent to the server and nowhere else.
        headers: sent with every call.
        timeout: seconds that the server may be silent.
        patience: how long to wait for a server that fails.
        max_requests: requests in an input file, at most.
        max_bytes: bytes in an input file, at most.
        max_attempts: how often one request is put into a job.
        max_jobs: jobs in flight at once.
        jobs: how jobs are made and watched.
        ledger_dir: where the ledger lies.
        deadline: seconds after which no batch is waited for; `None` for never.
        sync_below: fewer requests than these are asked synchronously.
        preflight: whether a request is tried out before the others are submitted.
        reuse_answers: whether a run is given the answers that earlier ones were given.
        run: the submission that it takes part in, if it does.
        azure_api_version: the version of Azure's API; `None` for a server that speaks OpenAI's.
        budget: what may be spent, in all sessions together.
    """

    base_url: str | None
    # Not in the `repr`: distilabel's tracebacks show the locals.
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
    deadline: float | None = None
    sync_below: float = 0
    preflight: bool = False
    run: Run | None = None
    azure_api_version: str | None = None
    budget: Unlimited = UNLIMITED

    def endpoint(self, path: str) -> str:
        """What the server calls an endpoint of OpenAI's: Azure's have no version in front."""
        return path.removeprefix("/v1") if self.azure_api_version else path


_WINDOW = re.compile(r"(\d+)([hd])")
_UNIT_SECONDS = {"h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How jobs are made and watched.

    Attributes:
        completion_window: as the API's.
        schedule: when to look at them.
        metadata: what each batch carries besides its key.
        wait: whether to wait for jobs to end.
        delete_files: whether to remove a job's files from the server once their content is in the ledger.
        window_binds: whether the server ends a job when its window closes. Otherwise a job may go on for longer, and is
            not cancelled for it.
    """

    completion_window: str
    schedule: PollSchedule
    metadata: Mapping[str, str]
    wait: bool = True
    delete_files: bool = False
    window_binds: bool = True

    def window_seconds(self, batch: Batch) -> float:
        """Seconds from a batch's creation until it should be over; infinite where nobody says when."""
        if not self.window_binds:
            return float("inf")
        if batch.expires_at and batch.created_at:
            return batch.expires_at - batch.created_at
        match = _WINDOW.fullmatch(self.completion_window)
        return float(match[1]) * _UNIT_SECONDS[match[2]] if match else float("inf")


_SHARE_OF_AGE = 0.05


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """Intervals that grow with the age of the job.

    Attributes:
        shortest: seconds, at least, between two looks at a job.
        longest: seconds, at most, between two looks at a job. With 65 a job of 24 hours costs 1,415 looks.
    """

    shortest: float = 1.0
    longest: float = 65.0

    def interval(self, age: float) -> float:
        """Seconds to wait before the next look.

        Args:
            age: seconds since the job was created; a negative one, of clocks that disagree, counts as 0.

        Returns:
            A twentieth of the age, within `shortest` and `longest`; `shortest` counts where the two contradict.
        """
        return max(self.shortest, min(self.longest, age * _SHARE_OF_AGE))
