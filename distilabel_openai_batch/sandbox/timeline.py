"""Status of a batch at a given time: a pure function of durations, settings and the worker's progress."""

from __future__ import annotations

from dataclasses import dataclass

TERMINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class ScriptedEnd:
    """End of a batch that a fault ordered.

    Attributes:
        status: status that the batch shows after `answered_count` requests.
        answered_count: number of requests that are answered.
    """

    status: str
    answered_count: int


@dataclass(frozen=True)
class Timeline:
    """Inputs of a batch's status. Times are seconds since the epoch, durations are seconds.

    Attributes:
        created_at: creation time of the batch.
        expires_at: time at which the completion window closes.
        validating: duration of validation.
        in_progress: duration of all requests together.
        finalizing: duration of writing the result files.
        cancelling: duration of a cancellation.
        request_count: number of requests.
        is_valid: `False` if validation failed.
        read_at: time at which the worker had read the input file; `None` until then.
        answered_at: time at which the worker had written all answers; `None` until then.
        cancel_at: time of the request to cancel; `None` without one.
        scripted_end: end that a fault ordered; `None` without one.
        seen_at: last time at which the batch was seen unfinished. The batch cannot have ended before, even if the
            durations are shortened afterwards.
    """

    created_at: float
    expires_at: float
    validating: float = 0.0
    in_progress: float = 0.0
    finalizing: float = 0.0
    cancelling: float = 0.0
    request_count: int = 0
    is_valid: bool = True
    read_at: float | None = None
    answered_at: float | None = None
    cancel_at: float | None = None
    scripted_end: ScriptedEnd | None = None
    seen_at: float = 0.0

    @property
    def validated_at(self) -> float | None:
        """Time at which validation ends; `None` while the worker is reading the input file."""
        return None if self.read_at is None else max(self.created_at + self.validating, self.read_at)

    def answered_by(self, time: float) -> int:
        """Return the number of requests that are answered by a given time."""
        if self.scripted_end is not None:
            return min(self.scripted_end.answered_count, self.request_count)
        validated = self.validated_at
        if validated is None or time < validated:
            return 0
        if time >= validated + self.in_progress:
            return self.request_count
        return int(self.request_count * (time - validated) / self.in_progress)


@dataclass(frozen=True)
class Stage:
    """Status and progress of a batch at one time.

    Attributes:
        status: OpenAI's name of the status.
        answered_count: number of answered requests.
        timestamps: fields `*_at` that the batch has reached, in seconds since the epoch.
    """

    status: str
    answered_count: int
    timestamps: dict[str, float]

    @property
    def ended_at(self) -> float | None:
        """End time of the batch, in seconds since the epoch; `None` while the batch is unfinished."""
        return self.timestamps[f"{self.status}_at"] if self.status in TERMINAL_STATUSES else None


def stage_at(line: Timeline, now: float) -> Stage:
    """Return the stage of a batch at the time `now`, in seconds since the epoch."""
    validated = line.validated_at
    if line.cancel_at is not None:
        return _cancelled_stage(line, line.cancel_at, now)
    if validated is None or now < min(validated, line.expires_at):
        return Stage("validating", 0, {})
    if not line.is_valid:
        if now < validated:
            return Stage("validating", 0, {})
        return Stage("failed", 0, {"failed_at": max(validated, line.seen_at)})
    if line.expires_at < validated:
        return Stage("expired", 0, {"expired_at": max(line.expires_at, line.seen_at)})
    begun = {"in_progress_at": validated}
    if line.scripted_end is not None:
        return _scripted_stage(line, line.scripted_end, begun, now)
    return _working_stage(line, validated, begun, now)


def _working_stage(line: Timeline, validated: float, begun: dict[str, float], now: float) -> Stage:
    """Return the stage of a batch that passed validation, from `in_progress` to its end."""
    finish = validated + line.in_progress
    if line.answered_at is None or now < min(finish, line.expires_at):
        return Stage("in_progress", line.answered_by(now), begun)
    if finish > line.expires_at:
        end = max(line.expires_at, line.answered_at, line.seen_at)
        return Stage("expired", line.answered_by(line.expires_at), begun | {"expired_at": end})

    finish = max(finish, line.answered_at)
    if now < finish:
        return Stage("in_progress", line.answered_by(now), begun)
    timestamps = begun | {"finalizing_at": finish}
    if now < finish + line.finalizing:
        return Stage("finalizing", line.request_count, timestamps)
    completed_at = max(finish + line.finalizing, line.seen_at)
    return Stage("completed", line.request_count, timestamps | {"completed_at": completed_at})


def _cancelled_stage(line: Timeline, cancel_at: float, now: float) -> Stage:
    """Return the stage of a batch with a request to cancel; requests answered by then keep their results."""
    validated = line.validated_at
    has_begun = line.is_valid and validated is not None and validated <= cancel_at
    answered_count = line.answered_by(cancel_at) if has_begun else 0
    timestamps = {"cancelling_at": cancel_at}
    if has_begun and validated is not None:
        timestamps["in_progress_at"] = validated
    end = max(cancel_at + line.cancelling, line.seen_at)
    if has_begun:
        if line.answered_at is None:
            return Stage("cancelling", answered_count, timestamps)
        end = max(end, line.answered_at)
    if now < end:
        return Stage("cancelling", answered_count, timestamps)
    return Stage("cancelled", answered_count, timestamps | {"cancelled_at": end})


def _scripted_stage(line: Timeline, scripted: ScriptedEnd, begun: dict[str, float], now: float) -> Stage:
    """Return the stage of a batch whose end a fault ordered."""
    answered_count = line.answered_by(now)
    if scripted.status not in TERMINAL_STATUSES or line.answered_at is None:
        return Stage("in_progress", answered_count, begun)
    end = max(begun["in_progress_at"], line.answered_at, line.seen_at)
    timestamps = begun | {f"{scripted.status}_at": end}
    if scripted.status == "cancelled":
        timestamps["cancelling_at"] = begun["in_progress_at"]
    return Stage(scripted.status, answered_count, timestamps)
