"""Failures of a run by kind, and the log lines about each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.display.advice import RetryWay, is_limit_spent, next_step
from distilabel_openai_batch.text import plural

# Kinds of failures with a line of their own: more kinds are messages that differ in each row.
_KINDS_LOGGED = 20

# Custom_ids per kind of failure: enough to find a few of the requests with `failures` or on the server.
_CUSTOM_IDS_LOGGED = 3


@dataclass(slots=True)
class _FailureKind:
    """Failures that share one line of the log.

    Attributes:
        example: the first failure.
        custom_ids: the `custom_id`s of the first failed requests.
        count: the number of failures.
    """

    example: Failure
    custom_ids: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, custom_id: str | None) -> None:
        """Count a failed request; `None` for a row that could not be encoded as a request."""
        self.count += 1
        if custom_id and len(self.custom_ids) < _CUSTOM_IDS_LOGGED:
            self.custom_ids.append(custom_id)


class FailureKinds:
    """Failed requests of a run, counted by kind.

    Attributes:
        count: the number of failed requests.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kinds: dict[tuple[object, ...], _FailureKind] = {}

    def add(self, failure: Failure, custom_id: str | None, *kind: object) -> None:
        """Count a failed request.

        Args:
            failure: the reason.
            custom_id: the request's `custom_id`; `None` for a row that could not be encoded as a request.
            kind: values that the failures of one kind have in common.
        """
        self.count += 1
        self._kinds.setdefault(kind, _FailureKind(failure)).add(custom_id)

    def count_by_reason(self) -> dict[str, int]:
        """Return the number of failed requests by status code and error code, the most frequent reason first."""
        reasons: Counter[str] = Counter()
        for kind in list(self._kinds.values()):
            reasons[describe_reason(kind.example.status_code, kind.example.code)] += kind.count
        return dict(reasons.most_common())

    def lines(self, command: str, retry: RetryWay) -> Iterator[str]:
        """Yield a line for each kind with advice, most frequent first, and a line about all failures.

        Args:
            command: the command that lists the failed requests.
            retry: the way to submit the requests again.
        """
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.count)
        for kind in kinds[:_KINDS_LOGGED]:
            custom_ids = f" The first custom_ids: {', '.join(kind.custom_ids)}." if kind.custom_ids else ""
            advice = next_step(kind.example, next(iter(kind.custom_ids), None), retry)
            yield f"⚠️ {plural(kind.count, 'request')} failed: {str(kind.example).rstrip('.')}.{custom_ids} → {advice}"
        if others := kinds[_KINDS_LOGGED:]:
            requests = plural(sum(kind.count for kind in others), "more request")
            yield f"⚠️ {requests} failed for {plural(len(others), 'other reason')}."
        if kinds:
            spent = sum(kind.count for kind in kinds if is_limit_spent(kind.example))
            warning = (
                f" Change the limit of tokens first: without a change, {plural(spent, 'request')} would be billed again"
                " for the same result."
            )
            yield (
                f"🔎 `{command}` lists all failed requests;"
                f" `add_failures=True` adds the reason to each row. {retry.clause} to submit these requests again."
                f"{warning if spent else ''}"
            )


def describe_retries(kinds: Mapping[str, int]) -> str:
    """Return the text about retries, such as "retry of 12 cut answers and 1 failed request".

    Args:
        kinds: number of retries by kind, see `Request.retry_of`.
    """
    return f"retry of {' and '.join(plural(number, kind) for kind, number in kinds.items())}"


def describe_reason(status_code: int | None, code: str | None) -> str:
    """Return the status code of a refusal and the error code: `400 invalid_prompt`, `content_filter`."""
    status = status_code if status_code and status_code >= 300 else None
    return " ".join(str(part) for part in (status, code) if part) or "no code"
