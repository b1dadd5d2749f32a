"""Tests of the commands that read the ledger; none of them needs a server."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.report.page import _cards, read_report
from tests.support.commands import add_scope, run_command
from tests.support.ledgers import LedgerWriter
from tests.unit.ledger.samples import make_answer, plan_ended_job, record

READING_COMMANDS = [
    ["jobs"],
    ["costs"],
    ["watch"],
    ["failures"],
    ["show", "batch_1"],
    ["results"],
    ["cancel", "--all"],
    ["forget", "x"],
]


def test_a_pipe_gets_unbroken_lines(tmp_path):
    pipeline, message = "pipeline_" + "load_data_from_hub_0_" * 20, "This is too long, by far. " * 20
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope(pipeline, "text_generation_0")
        writer.job(scope, 0.0, requests=3, answered=2, failures=[(400, "bad_prompt", message)])
    [job] = LedgerReader(tmp_path).jobs()
    for command, words in {
        "jobs": (f"{pipeline}/text_generation_0", job.batch_id, "completed", "2/3"),
        "failures": ("400", "bad_prompt", message.strip()),
        "costs": (f"{pipeline}/text_generation_0", "gpt-4o-mini"),
    }.items():
        lines = run_command(command, "--ledger-dir", tmp_path).stdout.splitlines()
        [line] = [line for line in lines if words[0] in line]
        assert all(word in line for word in words)


def test_results_that_cannot_be_written_leave_no_file(tmp_path, tmp_path_factory):
    ledger_dir = tmp_path_factory.mktemp("ledger")
    add_scope(ledger_dir, "pipeline", "task", "http://127.0.0.1:9/v1/")
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "such.jsonl", tmp_path / "file" / "a.jsonl", tmp_path / f"{'a' * 250}.jsonl"):
        result = run_command("results", "-o", path, "--ledger-dir", ledger_dir)
        assert result.exit_code == 1
        assert f"{path} cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("arguments", READING_COMMANDS, ids=" ".join)
def test_a_missing_ledger_is_an_error_and_is_not_created(arguments, tmp_path):
    result = run_command(*arguments, "--ledger-dir", tmp_path / "none")
    assert result.exit_code == 1
    assert "There is no ledger in" in result.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="homes are found otherwise there")
def test_without_a_home_the_user_has_to_name_a_directory(monkeypatch, tmp_path):
    """In a container the user may have no home: the error names the three settings of the directory."""

    def no_such_user(_uid):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("DISTILABEL_OPENAI_BATCH_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    result = run_command("jobs")
    assert result.exit_code == 1
    for way in ("`ledger_dir`", "--ledger-dir", "$DISTILABEL_OPENAI_BATCH_DIR"):
        assert way in result.stderr
    result = run_command("doctor", "--base-url", "nowhere")
    assert "✗ ledger: The ledger cannot lie in ~/.cache/distilabel/openai_batch" in result.stdout
    assert "base URL" in result.stdout
    assert "✓ ledger" in run_command("doctor", "--base-url", "nowhere", "--ledger-dir", tmp_path).stdout


OTHER_FILES = {
    "another program's database": (b"CREATE TABLE t (x)", "a database of another program"),
    "newer schema": (b"PRAGMA application_id = 0x646F6261; PRAGMA user_version = 99", "by a newer release"),
    "no database": (None, "is damaged, or is no ledger"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.parametrize("arguments", READING_COMMANDS, ids=" ".join)
def test_a_file_that_is_no_ledger_is_an_error_and_stays_unchanged(kind, arguments, tmp_path):
    path = tmp_path / "ledger.sqlite3"
    script, reason = OTHER_FILES[kind]
    if script:
        with sqlite3.connect(path) as database:
            database.executescript(script.decode())
        database.close()
    else:
        path.write_bytes(b"not a database" * 100)
    before = path.read_bytes()
    result = run_command(*arguments, "--ledger-dir", tmp_path)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_ledger_has_no_jobs_and_is_no_error(tmp_path, monkeypatch):
    """The same holds for an empty file, while a run creates the ledger."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    messages = {"jobs": "No jobs.", "watch": "No open jobs.", "failures": "No failed requests."}
    (tmp_path / "ledger.sqlite3").touch()
    for _ in range(2):
        for command, words in messages.items():
            result = run_command(command)
            assert (result.exit_code, result.stdout.strip()) == (0, words)
        assert json.loads(run_command("jobs", "--json").stdout) == []
        add_scope(tmp_path, "pipeline", "task", "http://127.0.0.1:9/v1/")
    assert run_command("results").stdout == ""
    assert "Nothing to forget" in run_command("forget", "pipeline").stdout


WRITER = """
import sys
from pathlib import Path
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.api.requests import Request, Shard

ledger, written = Ledger(Path(sys.argv[1]), ScopeName("writing", "", "http://127.0.0.1:9/v1/")), 0
print("writing", flush=True)
import select
while not select.select([sys.stdin], [], [], 0.005)[0]:
    request = Request(f"{written:032x}-0", "/v1/chat/completions", "m", b"{}")
    ledger.jobs.plan(Shard.of([request]))
    written += 1
ledger.close()
print(written)
"""


def test_jobs_reads_whole_transactions_while_a_run_writes(tmp_path):
    arguments = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        counts = []
        while len(counts) < 20 or counts[-1] == counts[0]:
            jobs = json.loads(run_command("jobs", "--json", "--ledger-dir", tmp_path).stdout)
            assert {job["requests"] for job in jobs} <= {1}
            counts.append(len(jobs))
        written, _ = writer.communicate("\n")
    assert counts == sorted(counts)
    assert int(written) == len(json.loads(run_command("jobs", "--json", "--ledger-dir", tmp_path).stdout))


@pytest.mark.parametrize("command", [["jobs"], ["show", "p/a"], ["show", f"batch_{1:024x}"], ["costs"], ["failures"]])
def test_no_line_in_a_pipe_is_filled_with_spaces(tmp_path, command):
    """A long text of one row would fill all lines of its table."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("p", "a", "http://one/v1/")
        writer.job(scope, 0.0, "completed", requests=4, failures=[(400, "bad", "No." * 40), (500, None, "No.")])
        writer.job(writer.scope("a longer name", "b", "http://one/v1/"), 0.0, "failed", requests=40_000)
    result = run_command(*command, "--ledger-dir", tmp_path)
    assert result.stdout.strip() or result.stderr
    assert not [line for line in result.stdout.splitlines() if line != line.rstrip()]


def test_a_scope_is_selected_by_its_full_name_or_its_pipeline(tmp_path):
    for name in (("p", "a", "http://one/v1/"), ("p", "b", "http://one/v1/"), ("q", "a", "http://one/v1/")):
        add_scope(tmp_path, *name)
    add_scope(tmp_path, "q", "a", "http://two/v1/")
    exit_codes = {"p/a": 0, "p": 0, "q/a": 1, "q": 1, "unknown": 1}
    for scope, exit_code in exit_codes.items():
        assert run_command("results", scope, "--ledger-dir", tmp_path).exit_code == exit_code
    assert "q/a --base-url http://one/v1/" in run_command("results", "q", "--ledger-dir", tmp_path).stderr
    for command in (["jobs"], ["watch"], ["costs"], ["report"], ["failures"], ["results"], ["forget"]):
        result = run_command(*command, "unknown", "--ledger-dir", tmp_path)
        assert result.exit_code == 1
        assert "has no scope unknown. Its scopes: q/a, p/b, p/a" in result.stderr
    assert run_command("results", "q", "--base-url", "http://two/v1", "--ledger-dir", tmp_path).exit_code == 0


def test_the_answers_of_a_pipeline_name_their_scopes(tmp_path):
    for task in ("a", "b"):
        with closing(Ledger(tmp_path, ScopeName("p", task, "http://one/v1/"))) as ledger:
            record(ledger, plan_ended_job(ledger, "x-0"), x=make_answer("x"))
    lines = run_command("results", "p", "--all", "--ledger-dir", tmp_path).stdout.splitlines()
    assert [json.loads(line)["scope"] for line in lines] == ["p/a", "p/b"]


def test_a_scope_has_its_tokens_of_reasoning(tmp_path):
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4}}
    with closing(Ledger(tmp_path, ScopeName("p", "a", "http://one/v1/"))) as ledger:
        record(ledger, plan_ended_job(ledger, "x-0"), x=Answer.of({"model": "m", "usage": usage}))
    assert "3 in, 5 out (4 of them for reasoning)" in run_command("show", "p/a", "--ledger-dir", tmp_path).stdout
    shown = json.loads(run_command("show", "p/a", "--json", "--ledger-dir", tmp_path).stdout)
    assert (shown["tokens_out"], shown["tokens_reasoning"]) == (5, 4)


def test_two_scopes_with_one_label_are_selected_by_their_full_names(tmp_path):
    """A pipeline's Task and a submission may both be labelled `p/s`."""
    with closing(LedgerWriter(tmp_path)) as writer:
        for number, name in enumerate((("p", "s"), ("p/s", "")), 1):
            writer.job(writer.scope(*name), 0.0, requests=number)
    options = ["--ledger-dir", tmp_path]
    for command in ("results", "forget"):
        result = run_command(command, "p/s", *options)
        assert result.exit_code == 1
        listed = [line.split()[0] for line in result.stderr.splitlines() if "--base-url" in line]
        assert listed == ["p//s", "p/s//"]
    requests = [
        job["requests"] for scope in listed for job in json.loads(run_command("jobs", scope, "--json", *options).stdout)
    ]
    assert requests == [1, 2]
    assert "Forgot the outcomes of 2 requests" in run_command("forget", "p/s//", "--yes", *options).stdout
    assert [run_command("results", scope, *options).exit_code for scope in listed] == [0, 0]
    assert run_command("results", "p/s//", *options).stdout == ""
    assert "1 answer" in run_command("forget", "p//s", *options, input="n\n").stderr


def test_an_error_lists_five_scopes_at_most(tmp_path):
    for number in range(9):
        add_scope(tmp_path, "judge" if number == 1 else f"p{number}", "", "http://one/v1/")
    message = run_command("jobs", "jugde", "--ledger-dir", tmp_path).stderr
    assert "Its scopes: judge, p8, p7, p6, p5 and 4 more" in message
    message = run_command("results", "--ledger-dir", tmp_path).stderr
    assert message.count("--base-url") == 5
    assert "and 4 earlier scopes" in message


@pytest.fixture
def jobs_of_a_scope(tmp_path):
    """Return the directory of a ledger with thirty jobs of two requests each."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("pipeline", "task")
        for number in range(30):
            writer.job(scope, 60.0 * number, requests=2)
    return tmp_path


@pytest.mark.parametrize(("options", "shown"), [([], 20), (["-n", "3"], 3), (["--all"], 30), (["--limit", "99"], 30)])
def test_jobs_lists_the_latest_jobs_first(jobs_of_a_scope, options, shown):
    """The total counts all jobs."""
    result = run_command("jobs", *options, "--ledger-dir", jobs_of_a_scope)
    _, *lines, total = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == [f"batch_{number:024x}" for number in range(30, 30 - shown, -1)]
    assert total.split()[:3] == ["total", "60/60", "0"]
    assert (f"The latest {shown} of 30 jobs" in result.stderr) is (shown < 30)


@pytest.mark.parametrize(("options", "shown"), [([], 30), (["-n", "3"], 3)])
def test_jobs_prints_all_jobs_as_json_the_oldest_first(jobs_of_a_scope, options, shown):
    """Scripts read the list, so its order stays."""
    jobs = json.loads(run_command("jobs", "--json", *options, "--ledger-dir", jobs_of_a_scope).stdout)
    assert [job["batch_id"] for job in jobs] == [f"batch_{number:024x}" for number in range(31 - shown, 31)]


def test_total_counts_a_request_of_several_jobs_once(tmp_path):
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("pipeline", "task")
        first = writer.job(scope, 0.0, requests=10, answered=7)
        second = writer.job(scope, 60.0, requests=3, answered=2, rows=False)
        # Two of the three failed requests were answered at the second attempt.
        writer._database.execute("UPDATE requests SET job = ? WHERE job = ? AND state = 'failed'", (second, first))
        writer._database.execute(
            "UPDATE requests SET state = 'answered' WHERE id IN (SELECT id FROM requests WHERE job = ? LIMIT 2)",
            (second,),
        )
    result = run_command("jobs", "--ledger-dir", tmp_path)
    assert result.stdout.splitlines()[-1].split()[:3] == ["total", "9/10", "1"]
    assert "jobs submitted 3 requests again" in result.stderr


def test_jobs_shows_the_counts_that_a_run_saw_last(tmp_path):
    """The run was interrupted before the batch ended."""
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.job(writer.scope("pipeline", "task"), 0.0, "in_progress", requests=427, answered=400, looks=10)
    [job] = LedgerReader(tmp_path).jobs()
    assert 0 < job.answered < 427
    assert f"{job.answered}/427" in run_command("jobs", "--ledger-dir", tmp_path).stdout


def test_end_of_a_batch_id_must_be_unambiguous(tmp_path):
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("pipeline", "task")
        for _ in range(17):
            writer.job(scope, 0.0, requests=1)
    result = run_command("show", "0001", "--ledger-dir", tmp_path)
    assert result.exit_code == 0
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET batch_id = 'batch_a0001' WHERE id = 2")
    result = run_command("show", "0001", "--ledger-dir", tmp_path)
    assert result.exit_code == 1
    assert "Several batches end with 0001" in result.stderr


@pytest.fixture
def two_tasks(tmp_path):
    """Return the directory of a ledger with two failures of one Task, and one failure of another Task."""
    with closing(LedgerWriter(tmp_path)) as writer:
        for task, count in (("write", 1), ("judge", 2)):
            scope = writer.scope("pipeline", task)
            writer.job(scope, 0.0, requests=3, answered=3 - count, failures=[(400, "odd", "It is odd.")] * count)
    return tmp_path


def test_failures_of_several_scopes_have_a_line_for_each_scope(two_tasks):
    lines = run_command("failures", "pipeline", "--ledger-dir", two_tasks).stdout.splitlines()
    assert lines[0].split()[0] == "scope"
    assert [line.split()[:4] for line in lines if line.startswith("pipeline/")] == [
        ["pipeline/judge", "2", "400", "odd"],
        ["pipeline/write", "1", "400", "odd"],
    ]
    header = run_command("failures", "pipeline/judge", "--ledger-dir", two_tasks).stdout.splitlines()[0]
    assert header.split()[0] == "requests"


def test_show_takes_the_name_of_a_pipeline_as_jobs_and_failures_do(two_tasks):
    shown = run_command("show", "pipeline", "--ledger-dir", two_tasks)
    assert [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("scope")] == [
        "pipeline/write",
        "pipeline/judge",
    ]
    objects = json.loads(run_command("show", "pipeline", "--json", "--ledger-dir", two_tasks).stdout)
    assert sorted(each["task"] for each in objects) == ["judge", "write"]


@pytest.fixture
def retried_answers(tmp_path):
    """Return the directory of a ledger in which retries replaced a cut answer and a failure; one row failed."""
    spent = Failure("The limit was spent.", 200, "length", (3, 5))
    with closing(Ledger(tmp_path, ScopeName("pipeline", "task", "https://api.example.com/v1/"))) as ledger:
        for outcomes in (
            {"a": make_answer("cut"), "b": spent, "c": Failure("Bad.", 400, "bad")},
            {"d": make_answer("a"), "e": make_answer("b")},
        ):
            job = plan_ended_job(ledger, *(f"{name}-0" for name in outcomes))
            record(ledger, job, **outcomes)
            ledger.jobs.mark_collected(job, MISSING_RESULT)
        ledger.row_failures.record_cut(["a-0"])
        ledger.row_failures.record_replaced({"a-0": True, "b-0": True})
        ledger.requests.mark_delivered(["a-0", "d-0", "e-0"], 1.0)
    return tmp_path


def test_results_are_one_answer_for_each_row(retried_answers):
    result = run_command("results", "--ledger-dir", retried_answers)
    assert [json.loads(line)["custom_id"] for line in result.stdout.splitlines()] == ["d-0", "e-0"]
    assert "Retries replaced 1 answer more: `results --all` writes all." in result.stderr
    assert "Earlier runs" not in result.stderr
    written = run_command("results", "--all", "--ledger-dir", retried_answers).stdout.splitlines()
    assert {line["custom_id"]: line["replaced"] for line in map(json.loads, written)} == {
        "a-0": True,
        "d-0": False,
        "e-0": False,
    }


def test_failures_that_retries_replaced_are_listed_with_all_alone(retried_answers):
    result = run_command("failures", "--ledger-dir", retried_answers)
    assert [line.split()[2] for line in result.stdout.splitlines()[1:]] == ["bad"]
    assert "Retries replaced 1 failed request more" in result.stderr
    assert "length (replaced)" in run_command("failures", "--all", "--ledger-dir", retried_answers).stdout


def test_jobs_and_show_count_each_row_once(retried_answers):
    header, *_, total = run_command("jobs", "--ledger-dir", retried_answers).stdout.splitlines()
    assert header.split()[3:6] == ["answered", "failed", "replaced"]
    assert total.split()[:4] == ["total", "2/3", "1", "2"]
    shown = run_command("show", "pipeline/task", "--ledger-dir", retried_answers).stdout
    assert "3; 2 answered, 1 failed\n" in shown
    assert "2 other requests, replaced by retries" in shown
    assert "12 in, 20 out" in shown


@pytest.fixture
def copied_answers(tmp_path):
    """Return the directory of a ledger whose second scope took two answers of the first scope, and bought one."""
    address = "https://api.example.com/v1/"
    with closing(Ledger(tmp_path, ScopeName("pipeline", "old", address))) as ledger:
        job = plan_ended_job(ledger, "a-0", "b-0")
        record(ledger, job, a=make_answer("a"), b=make_answer("b"))
        ledger.jobs.mark_collected(job, MISSING_RESULT)
    [source] = LedgerReader(tmp_path).scopes()
    with closing(Ledger(tmp_path, ScopeName("pipeline", "new", address))) as ledger:
        ledger.reused_answers.take(source.id, {"a-0": "a", "b-0": "b"})
        job = plan_ended_job(ledger, "c-0")
        record(ledger, job, c=make_answer("c"))
        ledger.jobs.mark_collected(job, MISSING_RESULT)
    return tmp_path


def test_copies_of_answers_are_no_part_of_the_total_of_jobs(copied_answers):
    result = run_command("jobs", "--ledger-dir", copied_answers)
    assert result.stdout.splitlines()[-1].split()[:3] == ["total", "3/3", "0"]
    assert "The total leaves out 2 answers of `reused` jobs, which other scopes were billed for." in result.stderr
    assert "submitted" not in result.stderr
    shown = run_command("show", "pipeline/new", "--ledger-dir", copied_answers).stdout
    assert "3; 3 answered, 0 failed" in shown
    assert "2 answers, billed to other scopes" in shown


def test_report_names_the_number_of_copied_answers(copied_answers):
    reader = LedgerReader(copied_answers)
    data = read_report(reader, reader.scopes(), "All scopes", 0.0)
    assert (data.answered, data.copied) == (5, 2)
    [answered, *_] = _cards(data, [])
    assert answered["note"].endswith("; 2 taken from other scopes")


@pytest.fixture
def failures_of_two_runs(tmp_path):
    """Return the directory of a ledger with one failure of the last run, and two of the run before."""
    with closing(LedgerWriter(tmp_path)) as writer:
        scope = writer.scope("pipeline", "task")
        last = writer.job(scope, 0.0, requests=2, answered=1, failures=[(400, "new", "It is new.")])
        writer.job(scope, 60.0, requests=3, answered=1, failures=[(400, "old", "It is old.")], took=60.0)
        # The last run continued the first job of the run before, which ended last.
        writer._database.execute("UPDATE jobs SET owner = 'last' WHERE id = ?", (last,))
    return tmp_path


def test_failures_lists_the_last_run_and_counts_the_others(failures_of_two_runs):
    result = run_command("failures", "--ledger-dir", failures_of_two_runs)
    _, line, *_ = result.stdout.splitlines()
    assert line.split()[:3] == ["1", "400", "new"]
    assert "It is old." not in result.stdout
    assert "Earlier runs had 2 failed requests more" in result.stderr


def test_failures_of_all_runs(failures_of_two_runs):
    result = run_command("failures", "--all", "--jsonl", "--ledger-dir", failures_of_two_runs)
    failures = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(failure["code"], failure["is_of_last_run"]) for failure in failures] == [
        ("new", True),
        ("old", False),
        ("old", False),
    ]
    assert all(failure["failed_at"] > 0 for failure in failures)
    assert result.stderr == ""
