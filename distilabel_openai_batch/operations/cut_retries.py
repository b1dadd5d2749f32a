"""Known requests of an estimate whose answers the token limit cut, which a run submits again with higher limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT
from distilabel_openai_batch.api.requests import build_custom_id
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.cut_answers import MAX_DOUBLINGS, double_limit, is_limited
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName


@dataclass(slots=True)
class RecordedAnswers:
    """Answers of a scope in the ledger.

    Attributes:
        answered: `custom_id`s of the requests that the server answered, with a text or without.
        cut: the `custom_id`s among them whose answers the token limit ended.
    """

    answered: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, reader: LedgerReader, scope: ScopeName) -> RecordedAnswers:
        """Read all answers of a scope: the ledger does not mark each cut answer.

        Raises:
            LedgerError: there is no ledger, or the file cannot be read.
        """
        found = cls()
        for entry in reader.scopes():
            if entry.name != scope:
                continue
            for recorded in reader.answers(entry):
                found.add(recorded.custom_id, is_cut=is_limited(recorded.answer))
            for failure in reader.failures([entry]):
                if failure.code == LENGTH_LIMIT:
                    found.add(failure.custom_id, is_cut=True)
        return found

    def add(self, custom_id: str, *, is_cut: bool) -> None:
        """Add an answered request."""
        self.answered.add(custom_id)
        if is_cut:
            self.cut.add(custom_id)

    def add_copies(self, source: RecordedAnswers, taken: Mapping[str, str]) -> None:
        """Add answers of another scope.

        Args:
            source: the answers of the other scope.
            taken: the `custom_id` in this scope by the `custom_id` in the other scope.
        """
        for other in source.answered & taken.keys():
            self.add(taken[other], is_cut=other in source.cut)


@dataclass(slots=True)
class CutRetries:
    """Retries of known requests.

    Attributes:
        first: tokens of the next retry of each request whose answer was cut, if the ledger does not have that retry.
        later: tokens of each retry that follows only if an answer to come is cut.
    """

    first: list[Usage | None] = field(default_factory=list)
    later: list[Usage | None] = field(default_factory=list)


def retry_digests(call: APICall, base_url: str, endpoint: str) -> tuple[str, ...]:
    """Return the digest of each retry of a call, with 2, 4 and 8 times the limit; none for a call without a limit.

    Args:
        call: the call.
        base_url: the address of the server.
        endpoint: the server's path of the endpoint.
    """
    digests: list[str] = []
    body = call.body
    for _ in range(MAX_DOUBLINGS):
        doubled = double_limit(body)
        if not doubled:
            break
        body = doubled
        retry = APICall(call.endpoint, body)
        digests.append(retry.build(base_url, endpoint)[1])
    return tuple(digests)


def find_retries(
    known: Iterable[tuple[str, Usage | None]],
    digests: Mapping[str, Sequence[str]],
    recorded: RecordedAnswers,
    occurrences: Mapping[str, int],
) -> CutRetries:
    """Return the retries of known requests that a run submits, or may submit.

    Args:
        known: `custom_id` and estimated tokens of each request that the ledger has as answered or in progress. An
            answer in progress may be cut.
        digests: the digests of the retries of each request.
        recorded: the answers of the ledger, by the `custom_id` in the estimate's scope.
        occurrences: the number of first requests by digest.
    """
    found = CutRetries()
    numbers = Counter(occurrences)
    for custom_id, usage in known:
        if custom_id in recorded.answered and custom_id not in recorded.cut:
            continue
        is_certain = custom_id in recorded.cut
        for doublings, digest in enumerate(digests.get(custom_id, ()), 1):
            retry = build_custom_id(digest, numbers[digest])
            numbers[digest] += 1
            if retry in recorded.answered:
                if retry not in recorded.cut:
                    break
                continue
            rounds = _retries(usage, doublings)
            if is_certain:
                found.first.append(rounds.pop(0))
            found.later += rounds
            break
    return found


def all_retries(usages: Iterable[Usage | None]) -> list[Usage | None]:
    """Return the tokens of each retry of requests whose answers are cut each time."""
    return [retry for usage in usages for retry in _retries(usage, 1)]


def _retries(usage: Usage | None, doublings: int) -> list[Usage | None]:
    """Return the tokens of the retries of a request, the first one with a limit that was doubled some times."""
    return [usage and _with_limit(usage, each) for each in range(doublings, MAX_DOUBLINGS + 1)]


def _with_limit(usage: Usage, doublings: int) -> Usage:
    """Return the tokens of the same requests with answers up to a limit that was doubled some times."""
    long_prompts = tuple(_with_limit(each, doublings) for each in usage.long_prompts)
    return replace(usage, tokens_out=usage.tokens_out << doublings, long_prompts=long_prompts)
