"""Where a batch stands at a given moment. Pure: time and what the worker has done are handed in."""

from __future__ import annotations

from dataclasses import dataclass

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True)
class Halt:
    """A scripted end of the work: the batch shows `status` once `done` requests are answered."""

    status: str
    done: int


@dataclass(frozen=True)
class Timeline:
    """What decides where a batch stands. Moments are seconds since the epoch, the rest are durations in seconds.

    Attributes:
        created_at: when the batch was created.
        expires_at: when its window closes.
        validating: how long it is validated.
        in_progress: how long its requests take, all together.
        finalizing: how long its files take.
        cancelling: how long it takes to cancel it.
        requests: how many requests it has.
        valid: whether validation lets it through.
        examined_at: when the worker had read the input file; `None` while it is reading.
        answered_at: when the worker had all answers; `None` while it is answering.
        cancel_at: when it was asked to cancel.
        halt: how it ends if not by itself.
        seen_at: when it was last seen unfinished: it cannot have ended before that, even if durations are changed now.
    """

    created_at: float
    expires_at: float
    validating: float = 0.0
    in_progress: float = 0.0
    finalizing: float = 0.0
    cancelling: float = 0.0
    requests: int = 0
    valid: bool = True
    examined_at: float | None = None
    answered_at: float | None = None
    cancel_at: float | None = None
    halt: Halt | None = None
    seen_at: float = 0.0

    @property
    def validated_at(self) -> float | None:
        """When validation ends, as far as it can be known by now."""
        return None if self.examined_at is None else max(self.created_at + self.validating, self.examined_at)

    def done_by(self, moment: float) -> int:
        """Returns how many requests are answered by then."""
        if self.halt is not None:
            return min(self.halt.done, self.requests)
        validated = self.validated_at
        if validated is None or moment < validated:
            return 0
        if moment >= validated + self.in_progress:
            return self.requests
        return int(self.requests * (moment - validated) / self.in_progress)


@dataclass(frozen=True)
class Stage:
    """Where a batch stands.

    Attributes:
        status: the API's word for it.
        done: how many requests are answered.
        moments: the `*_at` fields reached so far, in seconds since the epoch.
    """

    status: str
    done: int
    moments: dict[str, float]

    @property
    def ended_at(self) -> float | None:
        """When the batch ended, if it has."""
        return self.moments[f"{self.status}_at"] if self.status in TERMINAL else None


def stage(line: Timeline, now: float) -> Stage:
    """Returns where a batch stands now."""
    validated = line.validated_at
    if line.cancel_at is not None:
        return _cancelled(line, line.cancel_at, now)
    if validated is None or now < min(validated, line.expires_at):
        return Stage("validating", 0, {})
    if not line.valid:
        return Stage("failed", 0, {"failed_at": max(validated, line.seen_at)}) if now >= validated else _validating()
    if line.expires_at < validated:
        return Stage("expired", 0, {"expired_at": max(line.expires_at, line.seen_at)})

    begun = {"in_progress_at": validated}
    if line.halt is not None:
        return _halted(line, line.halt, begun, now)
    finish = validated + line.in_progress
    if line.answered_at is None or now < min(finish, line.expires_at):
        return Stage("in_progress", line.done_by(now), begun)
    if finish > line.expires_at:
        end = max(line.expires_at, line.answered_at, line.seen_at)
        return Stage("expired", line.done_by(line.expires_at), begun | {"expired_at": end})

    finish = max(finish, line.answered_at)
    if now < finish:
        return Stage("in_progress", line.done_by(now), begun)
    moments = begun | {"finalizing_at": finish}
    if now < finish + line.finalizing:
        return Stage("finalizing", line.requests, moments)
    return Stage("completed", line.requests, moments | {"completed_at": max(finish + line.finalizing, line.seen_at)})


def _validating() -> Stage:
    return Stage("validating", 0, {})


def _cancelled(line: Timeline, cancel_at: float, now: float) -> Stage:
    """Returns where a batch stands that was asked to cancel: what was answered by then is kept."""
    validated = line.validated_at
    worked = line.valid and validated is not None and validated <= cancel_at
    done = line.done_by(cancel_at) if worked else 0
    moments = {"cancelling_at": cancel_at}
    if worked and validated is not None:
        moments["in_progress_at"] = validated
    end = max(cancel_at + line.cancelling, line.seen_at)
    if worked:
        if line.answered_at is None:
            return Stage("cancelling", done, moments)
        end = max(end, line.answered_at)
    if now < end:
        return Stage("cancelling", done, moments)
    return Stage("cancelled", done, moments | {"cancelled_at": end})


def _halted(line: Timeline, halt: Halt, begun: dict[str, float], now: float) -> Stage:
    """Returns where a batch stands whose end is scripted."""
    done = line.done_by(now)
    if halt.status not in TERMINAL or line.answered_at is None:
        return Stage("in_progress", done, begun)
    end = max(begun["in_progress_at"], line.answered_at, line.seen_at)
    moments = begun | {f"{halt.status}_at": end}
    if halt.status == "cancelled":
        moments["cancelling_at"] = begun["in_progress_at"]
    return Stage(halt.status, done, moments)
