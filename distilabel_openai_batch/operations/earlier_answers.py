"""Answers of the ledger that an estimate does not count as known, for its notes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from distilabel_openai_batch.api.requests import sample_evenly
from distilabel_openai_batch.engine.answer_reuse import SAMPLE, name_source
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.step_estimate import AnswersElsewhere


def count_earlier_answers(reader: LedgerReader, scope: ScopeName) -> int:
    """Return the number of answers of a scope, 0 without a ledger.

    Raises:
        LedgerError: the file cannot be read.
    """
    entries = reader.scopes() if reader.path.exists() else []
    return sum(entry.answered for entry in entries if entry.name == scope)


def find_elsewhere(
    reader: LedgerReader, scope: ScopeName, siblings: Collection[str], custom_ids: Sequence[str]
) -> AnswersElsewhere | None:
    """Return the scope at the same server that knows most of a sample of requests, and at least half of the sample.

    Args:
        reader: the ledger.
        scope: the scope of the requests.
        siblings: names of the pipeline's steps, which may make the same requests on purpose.
        custom_ids: the requests to submit.

    Raises:
        LedgerError: the file cannot be read.
    """
    if not custom_ids or not reader.path.exists():
        return None
    sample = sample_evenly(custom_ids, SAMPLE)
    # The newest scope is first, and wins among equal ones.
    others = [entry.name for entry in reversed(reader.scopes()) if entry.name != scope]
    found = [
        AnswersElsewhere(
            name_source(others, other, scope.base_url), len(reader.find_submitted(other, sample)), len(sample)
        )
        for other in others
        if other.base_url == scope.base_url and not (other.pipeline == scope.pipeline and other.task in siblings)
    ]
    best = max(found, key=lambda each: each.known, default=None)
    return best if best and 2 * best.known >= len(sample) else None
