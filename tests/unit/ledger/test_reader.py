"""Reader of a ledger: all scopes, without a write, beside a run that writes."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure, read_answer
from distilabel_openai_batch.api.usage import LONG_PROMPT, Usage
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger import reader as reader_module
from distilabel_openai_batch.ledger.entries import INTERRUPTED
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from tests.support.ledgers import write_example_ledger
from tests.support.limited_sqlite import UnreadableConnection, connect_with
from tests.unit.ledger.samples import SCOPE, make_answer, make_shard, plan_created_job, plan_ended_job, record


@pytest.fixture
def reader(ledger):
    return LedgerReader(ledger.path.parent)


def test_a_job_has_its_counts_tokens_and_model(ledger, reader):
    job = plan_ended_job(ledger, "a-0", "b-0", "c-0")
    usage = {
        "prompt_tokens": LONG_PROMPT + 1,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 7},
    }
    long_answer = Answer.of({"model": "gpt-4o-mini-2024-07-18", "usage": usage})
    record(ledger, job, a=make_answer("a-0"), b=long_answer, c=Failure("Bad.", 400, "bad"))

    [entry] = reader.jobs()

    assert (entry.scope, entry.batch_id, entry.state, entry.status) == (
        SCOPE,
        job.batch_id,
        JobState.ENDED,
        "completed",
    )
    assert (entry.requests, entry.answered, entry.failed, entry.pending) == (3, 2, 1, 0)
    assert (entry.tokens_in, entry.tokens_out, entry.tokens_cached) == (LONG_PROMPT + 4, 10, 7)
    assert entry.long_usages == (Usage(LONG_PROMPT + 1, 5, 7),)
    assert entry.answered_by in ("", "gpt-4o-mini-2024-07-18")


def test_a_job_has_the_batchs_counts_before_its_results_are_recorded(ledger, reader):
    job = plan_created_job(ledger, "a-0", "b-0")
    ledger.jobs.mark_ended(job, Batch(job.batch_id, "completed", completed=1, failed=1, total=2))
    [entry] = reader.jobs()
    assert (entry.answered, entry.failed, entry.pending) == (1, 1, 2)


def test_the_jobs_of_one_scope_are_the_same_entries(tmp_path):
    write_example_ledger(tmp_path)
    reader = LedgerReader(tmp_path)
    jobs = reader.jobs()
    scopes = dict.fromkeys(job.scope for job in jobs)
    assert len(scopes) > 1
    of_scopes = [job for scope in scopes for job in reader.jobs(scope)]
    assert sorted(of_scopes, key=jobs.index) == jobs
    assert reader.jobs(ScopeName("nobody", "generate", "")) == []


@pytest.mark.parametrize("state", [JobState.PLANNED, JobState.SYNCHRONOUS])
def test_a_dead_sessions_job_without_a_batch_is_interrupted(ledger, reader, state):
    ledger.jobs.plan(make_shard("a-0"), state)
    assert reader.jobs()[0].status == state.value
    ledger.close()
    assert reader.jobs()[0].status == INTERRUPTED


def test_all_jobs_of_a_dead_session_are_interrupted(ledger, reader):
    ledger.jobs.plan(make_shard("a-0"))
    ledger.jobs.plan(make_shard("b-0"))
    ledger.close()
    assert [job.status for job in reader.jobs()] == [INTERRUPTED] * 2


def test_a_ledger_is_in_use_while_a_session_has_it_open(ledger, reader):
    assert reader.is_in_use()
    ledger.close()
    assert not reader.is_in_use()


def test_scopes_have_their_counts(ledger, open_ledger, reader):
    job = plan_ended_job(ledger, "a-0", "b-0", "c-0")
    record(ledger, job, a=make_answer("a-0"), b=Failure("Bad.", 400))
    sibling = replace(SCOPE, task="sibling")
    open_ledger(sibling).submissions.keep_rows([], None)

    first, second = reader.scopes()

    assert (first.name, first.answered, first.failed, first.pending) == (SCOPE, 1, 1, 1)
    assert (first.tokens_in, first.tokens_out) == (3, 5)
    assert (second.name, second.answered, second.failed, second.pending) == (sibling, 0, 0, 0)


def test_answers_and_failures_are_read_in_parts(ledger, reader, monkeypatch):
    """Each part has two rows; the order is the order of the plan."""
    monkeypatch.setattr(reader_module, "_CHUNK", 2)
    job = plan_ended_job(ledger, *(f"{name}-0" for name in "abcdefg"))
    record(ledger, job, **{name: make_answer(name) for name in "acegb"})
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    [scope] = reader.scopes()

    answers = list(reader.answers(scope))
    assert [entry.custom_id for entry in answers] == ["a-0", "b-0", "c-0", "e-0", "g-0"]
    assert (answers[0].batch_id, answers[0].answer, answers[0].answer.tokens) == (
        job.batch_id,
        make_answer("a"),
        (3, 5),
    )
    failures = list(reader.failures([scope]))
    assert [entry.custom_id for entry in failures] == ["d-0", "f-0"]
    assert (failures[0].message, failures[0].attempts) == (MISSING_RESULT.message, 1)
    submitted = [entry.custom_id for entry in answers]
    assert reader.find_submitted(SCOPE, [*submitted, "d-0", "x-0"]) == set(submitted)


def test_submitted_requests_are_answered_or_pending(ledger, reader):
    """A request of a dropped job will be submitted again."""
    dropped, _ = ledger.jobs.plan(make_shard("a-0"))
    ledger.jobs.mark_dropped(dropped)
    ledger.jobs.plan(make_shard("b-0"))
    assert reader.find_submitted(SCOPE, ["a-0", "b-0", "c-0"]) == {"b-0"}
    assert reader.find_submitted(replace(SCOPE, task="other"), ["b-0"]) == set()


def test_a_missing_ledger_is_an_error(tmp_path):
    with pytest.raises(LedgerError, match=r"There is no ledger in .*--ledger-dir"):
        LedgerReader(tmp_path).jobs()


def test_a_directory_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be opened"):
        LedgerReader(tmp_path / "file").jobs()


def test_a_damaged_ledger_is_an_error(ledger, reader):
    ledger.close()
    reader.path.write_bytes(b"This is a letter, not a ledger.")
    with pytest.raises(LedgerError, match="is damaged, or is no ledger"):
        reader.jobs()


def test_a_file_system_without_shared_memory_is_an_error_with_the_option(ledger, reader, monkeypatch):
    """A file with a write-ahead log was copied there, or its process died there."""
    connect_with(monkeypatch, UnreadableConnection)
    with pytest.raises(LedgerError, match=r"locking protocol\. .*--ledger-dir"):
        reader.jobs()


def test_a_file_without_tables_has_no_jobs(tmp_path):
    """A first run creates the file before the tables."""
    (tmp_path / FILE_NAME).touch()
    assert LedgerReader(tmp_path).jobs() == []


def test_reading_a_closed_ledger_leaves_no_file(ledger, reader):
    plan_ended_job(ledger, "a-0")
    ledger.close()
    before = sorted(path.name for path in reader.path.parent.iterdir())
    assert len(reader.jobs()) == 1
    assert sorted(path.name for path in reader.path.parent.iterdir()) == before


def test_a_query_does_not_wait_for_a_transaction(ledger, reader):
    plan_ended_job(ledger, "a-0")
    with ledger.connection.transaction() as database:
        database.execute("UPDATE jobs SET requests = 7")
        assert reader.jobs()[0].requests == 1
    assert reader.jobs()[0].requests == 7


@pytest.mark.parametrize("fails", [False, True])
def test_a_ledger_that_is_changed_during_a_query_is_read_again(ledger, reader, monkeypatch, fails):
    """The first read, without SQLite's locks, may be torn or fail; its rows are discarded."""
    plan_ended_job(ledger, "a-0")
    ledger.close()
    read, options = LedgerReader._read, []

    def read_and_change(self, mode, sql, parameters):
        options.append(mode)
        rows = read(self, mode, sql, parameters)
        if len(options) == 1:
            with sqlite3.connect(self.path) as database:
                database.execute("UPDATE jobs SET requests = 7")
            if fails:
                raise sqlite3.DatabaseError("database disk image is malformed")
        return rows

    monkeypatch.setattr(LedgerReader, "_read", read_and_change)
    assert reader.jobs()[0].requests == 7
    assert options == ["mode=ro&immutable=1", "mode=ro"]


def test_a_job_has_the_usage_of_each_priced_tier(ledger, reader):
    """The default tier has the price of the job; an unusable answer is billed too."""
    job, _ = ledger.jobs.plan(make_shard("a-0", "b-0", "c-0", "d-0"), JobState.SYNCHRONOUS)

    def answer(prompt_tokens: int, tier: str | None) -> Answer:
        body = {
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1},
            "service_tier": tier,
            "choices": [{}],
        }
        return read_answer(body)

    spent = Failure("Spent.", 200, "length_limit", (5, 6), tier="priority")
    record(ledger, job, a=answer(2, "flex"), b=answer(LONG_PROMPT + 1, "flex"), c=answer(7, None), d=spent)
    [entry] = reader.jobs()
    flex = Usage(LONG_PROMPT + 3, 2, long_prompts=(Usage(LONG_PROMPT + 1, 1),))
    assert dict(entry.usage_by_tier) == {"flex": flex, "priority": Usage(5, 6)}
    assert (entry.tokens_in, entry.is_flex) == (LONG_PROMPT + 15, True)


def answer_requests(ledger, *names: str) -> None:
    """Record answers in one collected job, as the run that has the ledger open."""
    results = [(f"{name}-0", make_answer(name)) for name in names]
    ledger.adopted_jobs.add_ended(Batch(f"batch_{names}", "completed", created_at=time.time()), f"{names}", results)


def names_of_last_run(ledger) -> list[str]:
    reader = LedgerReader(ledger.path.parent)
    return [entry.custom_id[0] for entry in reader.answers(reader.scopes()[0], of_last_run=True)]


def test_the_last_run_has_the_answers_that_it_used(ledger, open_ledger):
    """The second run reuses an answer, receives another one, and leaves the third one unused."""
    answer_requests(ledger, "a", "b")
    ledger.requests.mark_delivered(["a-0", "b-0"], time.time())
    assert names_of_last_run(ledger) == ["a", "b"]
    second = open_ledger()
    answer_requests(second, "c")
    second.requests.mark_delivered(["b-0", "c-0"], time.time() + 1)
    assert names_of_last_run(ledger) == ["b", "c"]
    third = open_ledger()
    third.requests.mark_delivered(["a-0"], time.time() + 2)
    assert names_of_last_run(ledger) == ["a"]
    reader = LedgerReader(ledger.path.parent)
    assert reader.count_answers(reader.scopes()[0]) == 3


def test_an_interrupted_run_has_the_answers_of_its_jobs(ledger, open_ledger):
    """No answer of the run was used."""
    answer_requests(ledger, "a", "b")
    assert names_of_last_run(ledger) == ["a", "b"]
    ledger.requests.mark_delivered(["a-0", "b-0"], time.time() - 10)
    answer_requests(open_ledger(), "c")
    assert names_of_last_run(ledger) == ["c"]
