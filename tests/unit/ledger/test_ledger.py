"""The ledger: what is written down stays, and whatever is wrong with the file is one clear error."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, replace

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger import schema as schema_module
from distilabel_openai_batch.ledger.connection import PAGE_BYTES
from distilabel_openai_batch.ledger.entries import JobTimeline
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import OPEN_STATES, TRANSITIONS, JobState, ScopeName

SCOPE = ScopeName("pipeline", "task", "https://api.example.com/v1/")
CHAT = "/v1/chat/completions"


def shard(*custom_ids: str) -> Shard:
    requests = [Request(custom_id, CHAT, "gpt-4o-mini", b"{}") for custom_id in custom_ids]
    return Shard(requests, sum(len(request.line()) for request in requests))


def answer(custom_id: str) -> Answer:
    return Answer.of({"id": custom_id, "usage": {"prompt_tokens": 3, "completion_tokens": 5}})


def ended(ledger, *custom_ids: str):
    """A job whose batch has ended."""
    job, _ = ledger.jobs.plan(shard(*custom_ids))
    batch = Batch(f"batch_{job.id}", "completed")
    return ledger.jobs.mark_ended(ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), batch), batch)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger", SCOPE)
    yield ledger
    ledger.close()


def reopened(ledger, scope=SCOPE) -> Ledger:
    ledger.close()
    return Ledger(ledger.path.parent, scope)


def test_what_was_answered_is_known_to_the_next_run(ledger):
    """As it was received; what failed with its reason; what is under way without an outcome."""
    job = ended(ledger, "a-0", "b-0", "c-0")
    ledger.requests.record(ledger.requests.row_ids(job), {"a-0": answer("a-0"), "b-0": Failure("Bad.", 400, "bad")})
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    under_way, _ = ledger.jobs.plan(shard("d-0"))

    known = reopened(ledger).requests.look_up(["a-0", "b-0", "c-0", "d-0", "e-0"])

    assert {custom_id: fact.outcome for custom_id, fact in known.items()} == {
        "a-0": answer("a-0"),
        "b-0": Failure("Bad.", 400, "bad"),
        "c-0": MISSING_RESULT,
        "d-0": None,
    }
    assert known["d-0"].job == under_way.id


def test_tokens_and_attempts_are_kept(ledger):
    """For whoever asks what it cost."""
    first = ended(ledger, "a-0")
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    second = ended(ledger, "a-0")
    ledger.requests.record(ledger.requests.row_ids(second), {"a-0": answer("a-0")})
    ledger.close()

    with sqlite3.connect(ledger.path) as database:
        row = database.execute("SELECT state, attempts, tokens_in, tokens_out, status_code FROM requests").fetchone()
    assert row == ("answered", 2, 3, 5, 200)


def test_a_request_is_in_one_job_only(ledger):
    """Whoever plans second gets what is left; what failed, or whose job came to nothing, is free."""
    first, claimed = ledger.jobs.plan(shard("a-0", "b-0"))
    assert claimed == ["a-0", "b-0"]
    second, claimed = ledger.jobs.plan(shard("b-0", "c-0"))
    assert claimed == ["c-0"]
    assert list(ledger.requests.row_ids(second)) == ["c-0"]

    ledger.jobs.mark_dropped(first)
    assert ledger.requests.look_up(["a-0", "b-0"]) == {}
    _, claimed = ledger.jobs.plan(shard("a-0", "b-0", "c-0"))
    assert claimed == ["a-0", "b-0"]


def test_an_answer_stays_an_answer(ledger):
    """Neither a later failure, nor another answer, nor a new plan takes it away."""
    job = ended(ledger, "a-0")
    ledger.requests.record(ledger.requests.row_ids(job), {"a-0": answer("a-0")})
    ledger.requests.record(ledger.requests.row_ids(job), {"a-0": Failure("Late.", 500)})
    ledger.requests.record(ledger.requests.row_ids(job), {"a-0": answer("other")})
    ledger.jobs.mark_collected(job, MISSING_RESULT)

    assert ledger.jobs.plan(shard("a-0"))[1] == []
    assert ledger.requests.look_up(["a-0"])["a-0"].outcome == answer("a-0")


def test_scopes_know_nothing_of_each_other(ledger):
    """Two Tasks that ask the same question are two buyers."""
    ledger.jobs.plan(shard("a-0"))
    for other in (ScopeName("pipeline", "other", SCOPE.base_url), ScopeName("pipeline", "task", "http://other/")):
        another = Ledger(ledger.path.parent, other)
        assert another.requests.look_up(["a-0"]) == {}
        assert another.jobs.plan(shard("a-0"))[1] == ["a-0"]
        assert len(another.jobs.list_open()) == 1
        another.close()


@pytest.mark.parametrize("state", JobState)
def test_a_job_goes_only_where_the_table_says(ledger, state):
    """Anything else is a mistake of ours, and is not written."""
    job, _ = ledger.jobs.plan(shard("a-0"), state if state is JobState.SYNCHRONOUS else JobState.PLANNED)
    batch = Batch("batch_1", "completed")
    ways = {
        JobState.UPLOADED: lambda job: ledger.jobs.mark_uploaded(job, "file-1"),
        JobState.CREATED: lambda job: ledger.jobs.mark_created(job, batch),
        JobState.ENDED: lambda job: ledger.jobs.mark_ended(job, batch),
        JobState.COLLECTED: lambda job: ledger.jobs.mark_collected(job, MISSING_RESULT),
        JobState.DROPPED: ledger.jobs.mark_dropped,
    }
    route = {
        JobState.SYNCHRONOUS: [],
        JobState.PLANNED: [],
        JobState.UPLOADED: [JobState.UPLOADED],
        JobState.CREATED: [JobState.CREATED],
        JobState.ENDED: [JobState.CREATED, JobState.ENDED],
        JobState.COLLECTED: [JobState.CREATED, JobState.ENDED, JobState.COLLECTED],
        JobState.DROPPED: [JobState.DROPPED],
    }
    for step in route[state]:
        job = ways[step](job)

    for following, go in ways.items():
        if following not in TRANSITIONS[state]:
            with pytest.raises(ValueError, match="cannot become"):
                go(job)
    assert ledger.jobs.get(job.id).state is state
    assert (state in OPEN_STATES) == (len(ledger.jobs.list_open()) == 1)


def test_a_job_of_the_dead_is_taken_over_once(ledger, tmp_path):
    """And that of the living is left to them."""
    job, _ = ledger.jobs.plan(shard("a-0"))
    another = Ledger(tmp_path / "ledger", SCOPE)
    third = Ledger(tmp_path / "ledger", SCOPE)
    assert another.jobs.take_over(job) is None

    ledger.close()
    taken = another.jobs.take_over(job)
    assert taken is not None
    assert taken.owner == another.owner
    assert third.jobs.take_over(job) is None
    assert third.jobs.take_over(taken) is None
    another.close()
    third.close()


def test_many_jobs_of_one_dead_owner_are_taken_over_at_once(ledger, tmp_path):
    """One thread's look at the owner's lock is not taken for the owner by another."""
    jobs = [ledger.jobs.plan(shard(f"a-{number}"))[0] for number in range(16)]
    ledger.close()
    # A kill leaves it behind.
    lock = tmp_path / "ledger" / "owners" / f"{ledger.owner}.lock"
    another = Ledger(tmp_path / "ledger", SCOPE)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            lock.touch()
            assert not any(threads.map(another._owners.is_alive, [job.owner for job in jobs]))
        assert all(threads.map(another.jobs.take_over, jobs))
    another.close()


def test_an_adopted_job_is_adopted_once(ledger):
    """By its key or its batch; its requests are then under way."""
    batch = Batch("batch_9", "in_progress", endpoint=CHAT, input_file_id="file-9")
    assert ledger.adopted_jobs.add_in_progress(batch, "key", ["a-0", "b-0"])
    [job] = ledger.jobs.list_open()

    assert not ledger.adopted_jobs.add_in_progress(batch, "key", ["a-0"])
    assert ledger.jobs.find_known(["key", "other"]) == {"key"}
    assert ledger.requests.look_up(["a-0"])["a-0"].job == job.id
    assert ledger.jobs.get(job.id).state is JobState.CREATED


def test_the_answers_of_an_adopted_job_count_whatever_else_is_known(ledger):
    """Over a failure, for a request under way elsewhere, which stays where it is, and not over another answer."""
    job, _ = ledger.jobs.plan(shard("asked-0"))
    first = ended(ledger, "answered-0", "failed-0")
    ledger.requests.record(ledger.requests.row_ids(first), {"answered-0": answer("first")})
    ledger.jobs.mark_collected(first, MISSING_RESULT)
    batch = Batch("batch_9", "expired", endpoint=CHAT)
    names = ["asked-0", "answered-0", "failed-0", "new-0"]

    results = [(name, answer(name)) for name in names] + [("lost-0", Failure("Too late."))]
    assert ledger.adopted_jobs.add_ended(batch, "key", results)
    assert not ledger.adopted_jobs.add_ended(batch, "key", results)

    known = ledger.requests.look_up([*names, "lost-0"])
    assert known["answered-0"].outcome == answer("first")
    assert [known[name].outcome for name in ("asked-0", "failed-0", "new-0")] == [
        answer(name) for name in ("asked-0", "failed-0", "new-0")
    ]
    assert known["lost-0"].outcome == Failure("Too late.")
    assert list(ledger.requests.row_ids(job)) == ["asked-0"]
    assert ledger.jobs.get(known["new-0"].job).state is JobState.COLLECTED


def test_the_failures_of_an_adopted_job_count_where_nothing_is_known(ledger):
    """A request that is under way elsewhere is under way."""
    ledger.jobs.plan(shard("asked-0"))
    ledger.adopted_jobs.add_ended(Batch("batch_9", "completed"), "key", [("asked-0", Failure("Too late."))])
    assert ledger.requests.look_up(["asked-0"])["asked-0"].outcome is None


@pytest.mark.parametrize("answered", [[0], [0, 1], [1], [2, 9, 10]])
def test_a_question_is_asked_anew_behind_what_was_handed_over(ledger, answered):
    """Whichever of the earlier ones failed, and by number, not by letter."""
    digest = "d" * 32
    job = ended(ledger, *[f"{digest}-{n}" for n in range(12)], f"{'e' * 32}-0")
    ledger.requests.record(ledger.requests.row_ids(job), {f"{digest}-{n}": answer("x") for n in answered})
    assert ledger.requests.next_occurrence(digest) == 0
    ledger.requests.mark_delivered()
    assert ledger.requests.next_occurrence(digest) == answered[-1] + 1
    assert ledger.requests.next_occurrence("e" * 32) == 0


def test_the_file_is_its_owners_alone(ledger):
    """And so are its companions and its directory."""
    ledger.jobs.plan(shard("a-0"))
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700
    files = [path for path in ledger.path.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {FILE_NAME, f"{FILE_NAME}-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def filled(path) -> None:
    ledger = Ledger(path, SCOPE)
    ledger.jobs.plan(shard(*(f"{n}-0" for n in range(2_000))))
    ledger.close()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path):
    path.write_bytes(b"This is a letter, not a ledger.\n" * 200)


def test_a_ledger_of_an_older_release_is_brought_up_to_date(tmp_path, monkeypatch):
    """From each version on, with what it has; until a run opens it, its jobs can be looked at all the same."""
    migrations = schema_module.migrations()
    for version in range(1, len(migrations)):
        directory = tmp_path / f"{version}"
        directory.mkdir()
        with closing(sqlite3.connect(directory / FILE_NAME)) as database:
            for statement in schema_module.split_statements("".join(migrations[:version])):
                database.execute(statement)
            database.execute("INSERT INTO scopes (id, pipeline, task, base_url) VALUES (1, ?, ?, ?)", astuple(SCOPE))
            database.execute(
                "INSERT INTO jobs"
                " (id, scope, key, owner, state, endpoint, model, requests, bytes, intended_at, batch_id)"
                " VALUES (1, 1, 'k', 'o', 'collected', '/v1/chat/completions', 'm', 1, 1, 1.0, 'batch_1')"
            )
            database.execute(f"PRAGMA application_id = {schema_module.APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {version}")
            database.commit()
        reader = LedgerReader(directory)
        assert [job.batch_id for job in reader.jobs()] == ["batch_1"]
        assert reader.timelines() == []

        with closing(Ledger(directory, SCOPE)) as ledger:
            assert ledger.submissions.find_run("batch_1") == SCOPE.pipeline

        assert reader.timelines() == [JobTimeline()]


def test_how_a_job_went_on_is_remembered(ledger):
    """What its server says of its statuses, and how far it was each time that it was looked at."""
    job, _ = ledger.jobs.plan(shard("a-0", "b-0"))
    job = ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), Batch("batch_1", "validating"))
    reader = LedgerReader(ledger.path.parent)
    assert reader.timelines() == [JobTimeline()]

    ledger.jobs.record_progress(job, Batch("batch_1", "in_progress", completed=1, in_progress_at=10.0))
    [timeline] = reader.timelines()
    assert timeline.in_progress_at == 10.0
    assert [look[1:] for look in timeline.polls] == [(1, 0)]

    ledger.jobs.mark_ended(
        job, Batch("batch_1", "expired", completed=1, in_progress_at=10.0, finalizing_at=20, finished_at=30)
    )
    [timeline] = reader.timelines()
    assert (timeline.in_progress_at, timeline.finalizing_at, timeline.cancelling_at, timeline.finished_at) == (
        10,
        20,
        None,
        30,
    )


def scramble(path):
    with path.open("r+b") as file:
        file.seek(200)
        # The rest of the first page: what says which tables there are stands at its end.
        file.write(os.urandom(PAGE_BYTES - 200))


def another_programs(path):
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE letters (text)")


def from_the_future(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")


DAMAGE = {
    "cut off": (truncate, "damaged"),
    "not a database": (overwrite, "damaged, or is no ledger"),
    "scrambled": (scramble, "damaged"),
    "another program's": (another_programs, "another program"),
    "a newer version's": (from_the_future, "newer release"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_file_that_is_no_ledger_is_an_error_and_is_left_as_it_is(tmp_path, case):
    """It says which file, and what to do."""
    damage, words = DAMAGE[case]
    filled(tmp_path)
    path = tmp_path / FILE_NAME
    damage(path)
    before = path.read_bytes()

    with pytest.raises(LedgerError, match=words) as raised:
        Ledger(tmp_path, SCOPE).requests.look_up([f"{n}-0" for n in range(2_000)])

    assert str(path) in str(raised.value)
    assert path.read_bytes() == before


def test_a_ledger_that_another_program_holds_is_an_error(tmp_path, monkeypatch):
    """After a while."""
    monkeypatch.setattr("distilabel_openai_batch.ledger.connection.BUSY_SECONDS", 0.1)
    filled(tmp_path)
    holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(LedgerError, match=r"locked\. Is another program holding it"):
            Ledger(tmp_path, SCOPE)
    finally:
        holder.close()


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    """A file is in its place."""
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "ledger", SCOPE)


def test_a_full_disk_is_an_error_and_loses_nothing(ledger):
    """What was written before is there, and what comes after it can be."""
    ledger.jobs.plan(shard("a-0"))
    [pages] = ledger.connection.database.execute("PRAGMA page_count").fetchone()
    ledger.connection.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full"):
        ledger.jobs.plan(shard(*(f"{n}-0" for n in range(20_000))))
    ledger.connection.database.execute("PRAGMA max_page_count = 1000000")
    assert set(ledger.requests.look_up(["a-0", "7-0"])) == {"a-0"}
    assert ledger.jobs.plan(shard("7-0"))[1] == ["7-0"]


def test_a_copy_can_be_opened_elsewhere(ledger, tmp_path):
    """A ledger is one file."""
    job = ended(ledger, "a-0")
    ledger.requests.record(ledger.requests.row_ids(job), {"a-0": answer("a-0")})
    ledger.close()
    shutil.copytree(ledger.path.parent, tmp_path / "copy")
    assert Ledger(tmp_path / "copy", SCOPE).requests.look_up(["a-0"])["a-0"].outcome == answer("a-0")


@pytest.mark.parametrize("time", range(5))
def test_many_open_a_new_one_at_once(tmp_path, time):
    """The first makes it, the others find it."""
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(Ledger(tmp_path, SCOPE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    for ledger in opened:
        ledger.close()


def test_many_plan_at_once(tmp_path):
    """Each request is in one job, whoever was first."""
    ledgers = [Ledger(tmp_path, SCOPE) for _ in range(4)]
    claims: list[str] = []

    def plan(ledger):
        for start in range(0, 200, 20):
            claims.extend(ledger.jobs.plan(shard(*(f"{n}-0" for n in range(start, start + 40))))[1])

    threads = [threading.Thread(target=plan, args=[ledger]) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claims) == sorted(f"{n}-0" for n in range(220))


def test_jobs_beside_are_those_of_living_runs_for_the_same_model(ledger):
    """They share the token limit of a model, whichever Task's they are."""
    job, _ = ledger.jobs.plan(shard("a-0"))
    with closing(Ledger(ledger.path.parent, replace(SCOPE, task="sibling"))) as sibling:
        theirs, _ = sibling.jobs.plan(shard("b-0"))
        assert ledger.jobs.find_sharing_limit(job.id) == set()
        theirs = sibling.jobs.mark_created(sibling.jobs.mark_uploaded(theirs, "file-1"), Batch("batch_1", "validating"))
        assert ledger.jobs.find_sharing_limit(job.id) == {theirs.id}
        assert sibling.jobs.find_sharing_limit(theirs.id) == set()
    assert ledger.jobs.find_sharing_limit(job.id) == set()
