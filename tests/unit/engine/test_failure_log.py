"""Failures of a session's rows, recorded at its end."""

from __future__ import annotations

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.failure_log import FailureLog
from distilabel_openai_batch.ledger.reader import LedgerReader
from tests.unit.ledger.samples import CHAT, make_answer, plan_ended_job, record


def test_failures_are_recorded(ledger):
    record(ledger, plan_ended_job(ledger, "a-0", "b-0"), a=make_answer("a"), b=make_answer("b"))
    log = FailureLog()
    body = b'{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Insult me."}]}'
    log.add_rejected(Request("a-0", CHAT, "m", body), Failure("The model refused: No.", code="refusal"))
    log.add_unsent("u-0", Failure("The input is no chat."))
    log.add_accepted("b-0")

    log.record(ledger)

    reader = LedgerReader(ledger.path.parent)
    assert [(entry.custom_id, entry.message, entry.prompt) for entry in reader.failures(reader.scopes())] == [
        ("a-0", "The model refused: No.", "Insult me."),
        ("u-0", "The input is no chat.", ""),
    ]


def test_answer_that_lacks_no_generation_any_more_is_no_failure(ledger):
    record(ledger, plan_ended_job(ledger, "a-0"), a=make_answer("a"))
    ledger.row_failures.record_rejections({"a-0": Failure("Does not fit.", code="invalid_structured_output")})
    log = FailureLog(ledger.row_failures.list_rejected())
    log.add_accepted("a-0")

    log.record(ledger)

    assert ledger.row_failures.list_rejected() == set()


def test_nothing_is_written_without_a_failure(ledger):
    """A mistyped scope leaves no trace in the ledger."""
    FailureLog().record(ledger)

    assert LedgerReader(ledger.path.parent).scopes() == []
