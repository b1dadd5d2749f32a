"""Copies of other scopes' answers."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import REUSED, JobState, ScopeName
from tests.unit.ledger.samples import SCOPE, make_answer, plan_created_job, record

OLD = ScopeName("old", "task", SCOPE.base_url)
OTHER = ScopeName("other", "task", SCOPE.base_url)


def answer_requests(ledger, *custom_ids, failed=()) -> None:
    """Record answers, each with its `custom_id` as its text, and failures, in one collected job."""
    outcomes = [(name, Failure("Bad.", 400) if name in failed else make_answer(name)) for name in custom_ids]
    ledger.adopted_jobs.add_ended(Batch(f"batch_{custom_ids}{ledger.scope}", "completed"), f"{ledger.owner}", outcomes)


def source_id(ledger, scope=OLD) -> int:
    return next(scope_id for scope_id, name in ledger.other_scopes.list_names() if name == scope)


def take(ledger, *custom_ids, scope=OLD) -> list[str]:
    """Take answers for requests that have the same digest in the other scope."""
    return ledger.reused_answers.take(source_id(ledger, scope), {name: name.rpartition("-")[0] for name in custom_ids})


def texts(ledger, *custom_ids) -> dict[str, str | None]:
    known = ledger.requests.look_up(custom_ids)
    return {
        name: entry.outcome.body["id"] if isinstance(entry.outcome, Answer) else None for name, entry in known.items()
    }


def rows(ledger, scope) -> list[tuple]:
    """Return everything that the ledger has of a scope's requests."""
    scope_id = source_id(ledger, scope)
    with ledger.connection.reading() as database:
        return database.execute(
            "SELECT requests.*, line FROM requests LEFT JOIN answers ON request = requests.id WHERE scope = ?",
            (scope_id,),
        ).fetchall()


def test_answers_are_copied_and_the_other_scope_stays_as_it_is(ledger, open_ledger):
    answer_requests(open_ledger(OLD), "a-0", "b-0", "c-0", failed=["c-0"])
    before = rows(ledger, OLD)
    assert take(ledger, "a-0", "b-0", "c-0", "d-0") == ["a-0", "b-0"]
    assert texts(ledger, "a-0", "b-0", "c-0", "d-0") == {"a-0": "a-0", "b-0": "b-0"}
    assert rows(ledger, OLD) == before
    assert take(ledger, "a-0", "b-0") == []


@pytest.mark.parametrize(
    ("there", "failed", "here", "expected"),
    [
        (["a-0"], [], ["a-0", "a-1"], {"a-0": "a-0"}),
        (["a-0", "a-1"], [], ["a-0", "a-1", "a-2"], {"a-0": "a-0", "a-1": "a-1"}),
        (["a-0", "a-1"], ["a-0"], ["a-0", "a-1"], {"a-0": "a-1"}),
        (["a-2", "a-10"], [], ["a-0", "a-1"], {"a-0": "a-2", "a-1": "a-10"}),
        (["a-0", "a-1", "b-0"], [], ["a-9", "a-10", "b-0"], {"a-9": "a-0", "a-10": "a-1", "b-0": "b-0"}),
    ],
    ids=["one answer", "two answers", "the first one failed", "numbers with a gap", "two-digit numbers"],
)
def test_each_request_takes_an_answer_of_its_own(ledger, open_ledger, there, failed, here, expected):
    answer_requests(open_ledger(OLD), *there, failed=failed)
    assert set(take(ledger, *here)) == set(expected)
    assert texts(ledger, *here) == expected


def test_a_later_request_takes_the_next_answer(ledger, open_ledger):
    """A flush takes the answer of the first request, and a later flush has the second one."""
    answer_requests(open_ledger(OLD), "a-0", "a-1")
    take(ledger, "a-0")
    take(ledger, "a-1", "a-2")
    assert texts(ledger, "a-0", "a-1", "a-2") == {"a-0": "a-0", "a-1": "a-1"}


def test_an_answer_arrives_once_by_several_ways(ledger, open_ledger):
    """The second scope has taken the answer of the first one, and this scope takes from both."""
    old, other = open_ledger(OLD), open_ledger(OTHER)
    answer_requests(old, "a-0")
    assert take(other, "a-0") == ["a-0"]
    assert take(ledger, "a-0", "a-1") == ["a-0"]
    assert take(ledger, "a-1", scope=OTHER) == []


def test_an_answer_never_returns_to_the_scope_that_was_billed(ledger, open_ledger):
    old = open_ledger(OLD)
    answer_requests(old, "a-0")
    take(ledger, "a-0")
    assert take(old, "a-1", scope=SCOPE) == []


def test_known_requests_take_no_answer(ledger, open_ledger):
    """An answered and a pending request stay; a request that failed in an earlier run takes an answer."""
    answer_requests(open_ledger(OLD), "a-0", "b-0", "c-0")
    answer_requests(ledger, "a-0", "c-0", failed=["c-0"])
    plan_created_job(ledger, "b-0")
    assert take(ledger, "a-0", "b-0", "c-0") == ["c-0"]


def test_digests_may_differ_between_the_scopes(ledger, open_ledger):
    """The scopes are at two addresses of one server."""
    answer_requests(open_ledger(OLD), "x-0", "y-0")
    assert ledger.reused_answers.take(source_id(ledger), {"a-0": "y", "b-0": "x"}) == ["a-0", "b-0"]
    assert texts(ledger, "a-0", "b-0") == {"a-0": "y-0", "b-0": "x-0"}


def test_pending_requests_are_found_by_their_jobs(ledger, open_ledger):
    """A dropped job answers nothing."""
    old = open_ledger(OLD)
    first, second = plan_created_job(old, "a-0", "b-0"), plan_created_job(old, "a-1")
    digests = {"a-0": "a", "a-1": "a", "a-2": "a", "b-0": "b", "c-0": "c"}
    assert ledger.reused_answers.find_pending(source_id(ledger), digests) == {
        first.id: ["a-0", "b-0"],
        second.id: ["a-1"],
    }
    old.jobs.mark_lost(second)
    record(old, first, b=make_answer("b"))
    assert ledger.reused_answers.find_pending(source_id(ledger), digests) == {first.id: ["a-0"]}


def test_copies_cost_nothing_and_keep_their_tokens(ledger, open_ledger):
    """The job of the copies is neither synchronous nor billed; the answers know their tokens."""
    answer_requests(open_ledger(OLD), "a-0")
    take(ledger, "a-0")
    reader = LedgerReader(ledger.path.parent)
    [job] = [job for job in reader.jobs() if job.scope == SCOPE]
    assert (job.status, job.state, job.batch_id, job.requests, job.answered) == (REUSED, JobState.COLLECTED, None, 1, 1)
    assert (job.is_billed, job.is_synchronous, job.is_open, job.tokens_in) == (False, False, False, 0)
    [scope] = [scope for scope in reader.scopes() if scope.name == SCOPE]
    assert (scope.answered, scope.tokens_in, scope.tokens_out) == (1, 0, 0)
    [entry] = reader.answers(scope)
    assert entry.answer.tokens == ledger.requests.look_up(["a-0"])["a-0"].outcome.tokens == (3, 5)


def test_a_forgotten_scope_takes_nothing_any_more(ledger, open_ledger):
    answer_requests(open_ledger(OLD), "a-0")
    ledger.other_scopes.add_source(OLD)
    assert ledger.other_scopes.list_sources() == [source_id(ledger)]
    take(ledger, "a-0")
    assert ledger.requests.forget() == 1
    assert ledger.other_scopes.list_sources() == []
    assert take(ledger, "a-0") == ["a-0"]
