"""The ledger as a whole: its file, its sessions, and outcomes that the next run finds."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading

import pytest

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Failure
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from tests.unit.ledger.samples import SCOPE, make_answer, make_shard, plan_ended_job, record


def test_the_next_run_finds_all_outcomes(ledger, open_ledger):
    job = plan_ended_job(ledger, "a-0", "b-0", "c-0")
    record(ledger, job, a=make_answer("a-0"), b=Failure("Bad.", 400, "bad"))
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    pending_job, _ = ledger.jobs.plan(make_shard("d-0"))
    ledger.close()

    known = open_ledger().requests.look_up(["a-0", "b-0", "c-0", "d-0", "e-0"])

    assert {custom_id: request.outcome for custom_id, request in known.items()} == {
        "a-0": make_answer("a-0"),
        "b-0": Failure("Bad.", 400, "bad"),
        "c-0": MISSING_RESULT,
        "d-0": None,
    }
    assert known["d-0"].job == pending_job.id


def test_the_file_is_for_its_user_only(ledger):
    """The directory has mode 0700; the ledger, its write-ahead log and the lock files have mode 0600."""
    ledger.jobs.plan(make_shard("a-0"))
    assert stat.S_IMODE(ledger.path.parent.stat().st_mode) == 0o700
    files = [path for path in ledger.path.parent.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {FILE_NAME, f"{FILE_NAME}-wal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path / "ledger", SCOPE)


def test_a_session_that_cannot_open_the_file_leaves_no_lock(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"This is a letter, not a ledger.\n" * 200)
    with pytest.raises(LedgerError):
        Ledger(tmp_path, SCOPE)
    assert [path.name for path in (tmp_path / "owners").iterdir()] in ([], ["opening.lock"])


def test_a_full_disk_is_an_error_and_loses_nothing(ledger):
    """Requests that were planned before are found, and requests can be planned afterwards."""
    ledger.jobs.plan(make_shard("a-0"))
    database = ledger.connection.database
    [pages] = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerError, match="full"):
        ledger.jobs.plan(make_shard(*(f"{n}-0" for n in range(20_000))))
    database.execute("PRAGMA max_page_count = 1000000")
    assert set(ledger.requests.look_up(["a-0", "7-0"])) == {"a-0"}
    assert ledger.jobs.plan(make_shard("7-0"))[1] == ["7-0"]


def test_a_copy_of_the_directory_is_a_ledger(ledger, tmp_path):
    job = plan_ended_job(ledger, "a-0")
    record(ledger, job, a=make_answer("a-0"))
    ledger.close()
    shutil.copytree(ledger.path.parent, tmp_path / "copy")
    copy = Ledger(tmp_path / "copy", SCOPE)
    assert copy.requests.look_up(["a-0"])["a-0"].outcome == make_answer("a-0")
    copy.close()


@pytest.mark.parametrize("repetition", range(5))
def test_several_sessions_create_the_file_at_once(tmp_path, repetition):
    opened: list[Ledger] = []
    run_in_threads([lambda: opened.append(Ledger(tmp_path, SCOPE))] * 8)
    assert len(opened) == 8
    for ledger in opened:
        ledger.close()


def test_several_sessions_plan_at_once(tmp_path):
    """Each request is claimed by one job, whichever session was first."""
    ledgers = [Ledger(tmp_path, SCOPE) for _ in range(4)]
    claims: list[str] = []

    def plan(ledger):
        for start in range(0, 200, 20):
            claims.extend(ledger.jobs.plan(make_shard(*(f"{n}-0" for n in range(start, start + 40))))[1])

    run_in_threads([lambda ledger=ledger: plan(ledger) for ledger in ledgers])
    assert sorted(claims) == sorted(f"{n}-0" for n in range(220))
    for ledger in ledgers:
        ledger.close()


def run_in_threads(functions) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_closed_ledger_has_no_lock_file(ledger):
    lock = ledger.path.parent / "owners" / f"{ledger.owner}.lock"
    assert lock.exists()
    ledger.close()
    assert not lock.exists()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.connection.database.execute("SELECT 1")
