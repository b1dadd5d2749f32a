"""Tests of the commands against the sandbox, and of the installed program."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import ANY

import httpx
import openai
import orjson
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from distilabel_openai_batch import RunError
from distilabel_openai_batch import sandbox as sandbox_package
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.display import bars
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import Job, ScopeName
from distilabel_openai_batch.operations import doctor
from distilabel_openai_batch.report.history import EndState, build_histories
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, Settings, server
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.commands import PROMPTS, add_scope, generate, run_command, submit_only
from tests.support.environment import API_KEY

COMMAND = Path(sys.executable).with_name("distilabel-openai-batch")
TOKENS = ("tokens_in", "tokens_out")


@pytest.fixture(autouse=True, scope="module")
def script_name():
    """Make `asking.py` the script's name, and so the scope's."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["asking.py"])
        yield


@pytest.fixture(scope="module")
def finished_run(script_name, running_sandbox, tmp_path_factory) -> Path:
    """Return the directory of a ledger with two jobs of twelve requests, two of which failed."""
    directory = tmp_path_factory.mktemp("finished_run")
    failures = [
        RequestFailure(contains="number 3", code="bad_prompt", message="No threes, please."),
        RequestFailure(contains="number 9", status=422, message="No nines."),
    ]
    running_sandbox.reset(Settings(failures=failures))
    generate(max_requests_per_job=8, ledger_dir=str(directory), base_url=running_sandbox.base_url, api_key=API_KEY)
    return directory


@pytest.fixture
def directory(finished_run, monkeypatch) -> Path:
    """Make the finished run's ledger the default one, and return its directory."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(finished_run))
    return finished_run


def test_shell_completion_lists_batch_ids(directory, monkeypatch):
    monkeypatch.setenv("_DISTILABEL_OPENAI_BATCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "distilabel-openai-batch show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    ids = {job.batch_id for job in LedgerReader(directory).jobs()}
    complete = {"prog_name": "distilabel-openai-batch"}
    assert set(run_command(**complete).output.split()) == {*ids, "asking.py"}
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", "/nowhere")
    assert run_command(**complete).output.split() == []


def test_jobs_prints_a_row_per_job_and_a_total(directory):
    lines = run_command("jobs").stdout.splitlines()
    assert lines[0].split() == ["scope", "batch", "status", "answered", "failed", "cost", "saved", "planned", "took"]
    numbers = sorted(line.split()[2:7] for line in lines[1:-1])
    assert numbers == [["completed", "3/4", "1", "?", "?"], ["completed", "7/8", "1", "?", "?"]]
    assert lines[-1].split() == ["total", "10/12", "2", "?", "?"]
    assert run_command("jobs").stderr.count("the price list lacks this server") == 1


def test_jobs_json_has_every_field_as_a_number(directory):
    jobs = json.loads(run_command("jobs", "--json").stdout)
    assert sorted((job["requests"], job["answered"], job["failed"]) for job in jobs) == [(4, 3, 1), (8, 7, 1)]
    for job in jobs:
        assert job["batch_id"].startswith("batch_")
        assert (job["status"], job["model"]) == ("completed", "gpt-4o-mini")
        assert job["scope"] == job["pipeline"]
        # The server's moment counts, in whole seconds, unless these lie before the plan.
        ends = [job["ended_at"], job["finished_at"] or job["ended_at"]]
        assert job["took_seconds"] in [pytest.approx(end - job["created_at"]) for end in ends]
        assert job["age_seconds"] >= job["took_seconds"]
        assert job["eta_seconds"] is None
        assert job["tokens_in"] > job["answered"]


@pytest.mark.parametrize("charset", ["latin-1", "ascii"])
@pytest.mark.parametrize("command", ["jobs", "failures", "doctor"])
def test_a_character_that_the_encoding_lacks_is_replaced(command, charset, sandbox):
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only()
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    with closing(sqlite3.connect(directory / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE requests SET state = 'failed', error = 'No – not that.' WHERE id = 1")
    result = CliRunner(charset=charset).invoke(app, [command])
    assert result.exception is None, result.exception
    assert {"jobs": "asking.py", "failures": "not that.", "doctor": "ledger: "}[command] in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_commands_run_with_a_closed_stdout_except_results(sandbox):
    """`results` asks for --output; the other commands still write to stderr."""
    submit_only()
    sandbox.settle()
    exit_codes = {"jobs": 0, "watch": 0, "failures": 0, "results": 1}
    for command, exit_code in exit_codes.items():
        closed = ["sh", "-c", 'exec "$0" "$@" >&-', COMMAND, command]
        result = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert "Traceback" not in result.stderr
        assert result.returncode == exit_code, result.stderr
    assert "--output" in result.stderr


def test_show_prints_one_job_as_text_and_as_json(directory):
    job = json.loads(run_command("jobs", "--json").stdout)[0]
    assert json.loads(run_command("show", job["batch_id"], "--json").stdout) == job | {"age_seconds": ANY}
    shown = run_command("show", job["batch_id"]).stdout
    assert f"{job['requests']}; {job['answered']} answered, {job['failed']} failed" in shown
    assert job["input_file_id"] in shown


def test_show_finds_a_batch_by_the_end_of_its_id(directory):
    """A narrow terminal shows the end alone, after a sign that may be copied too."""
    job = json.loads(run_command("jobs", "--json").stdout)[0]
    for name in (job["batch_id"][-8:], f"…{job['batch_id'][-8:]}"):
        assert json.loads(run_command("show", name, "--json").stdout)["batch_id"] == job["batch_id"]


def test_show_prints_the_sums_of_a_scope(directory):
    shown = run_command("show", "asking.py").stdout
    assert re.search(r"jobs +2; 0 open", shown)
    assert re.search(r"requests +12; 10 answered, 2 failed", shown)
    sums = json.loads(run_command("show", "asking.py", "--json").stdout)
    assert (sums["scope"], sums["requests"], sums["answered"], sums["failed"], sums["jobs"]) == (
        "asking.py", 12, 10, 2, 2,
    )  # fmt: skip


def test_an_unknown_batch_is_an_error_that_lists_the_known_batches(directory):
    batches = [job.batch_id for job in LedgerReader(directory).jobs()]
    for command in (["show", "batch_9"], ["cancel", "batch_9"]):
        result = run_command(*command)
        assert result.exit_code == 1
        assert "has no batch batch_9, and no such scope" in result.stderr
        assert "its scopes: asking.py" in result.stderr
        assert all(batch in result.stderr for batch in batches)


def test_failures_groups_requests_by_reason(directory):
    output = run_command("failures").stdout
    assert re.search(r"1 +400 +bad_prompt +\d\d-\d\d \d\d:\d\d +No threes, please\. +[0-9a-f]{32}-0", output)
    assert re.search(r"1 +422 .*No nines\.", output)
    assert re.search(r"[0-9a-f]{32}-0 Say number 3\.", output)


def test_failures_jsonl_has_a_line_per_request(directory):
    failures = [json.loads(line) for line in run_command("failures", "--jsonl").stdout.splitlines()]
    assert sorted(failure["message"] for failure in failures) == ["No nines.", "No threes, please."]
    batches = {job.batch_id for job in LedgerReader(directory).jobs()}
    assert {failure["batch_id"] for failure in failures} == batches
    assert {failure["attempts"] for failure in failures} == {1}
    assert sorted(failure["prompt"] for failure in failures) == ["Say number 3.", "Say number 9."]


def test_results_writes_the_responses_and_their_texts(directory):
    records = [json.loads(line) for line in run_command("results").stdout.splitlines()]
    assert len(records) == 10
    for record in records:
        assert record["generations"] == [record["response"]["choices"][0]["message"]["content"]]
        assert record["tokens_out"] == record["response"]["usage"]["completion_tokens"]


def test_results_writes_the_same_rows_to_jsonl_and_parquet(directory, tmp_path):
    lines, rows = tmp_path / "results.jsonl", tmp_path / "results.parquet"
    for path in (lines, rows):
        assert run_command("results", "-o", path).exit_code == 0
    written = [json.loads(line) for line in lines.read_bytes().splitlines()]
    read = pyarrow.parquet.read_table(rows).to_pylist()
    assert [row | {"response": orjson.loads(row["response"])} for row in read] == written
    assert sorted(tmp_path.iterdir()) == [lines, rows]


def test_results_has_the_questions_on_request(sandbox, tmp_path):
    """The server has them: a file that is gone costs the questions of its batch alone."""
    generate(PROMPTS[:4], ledger_dir=str(tmp_path), max_requests_per_job=2, max_jobs=1)
    first, _ = LedgerReader(tmp_path).jobs()
    openai.OpenAI(max_retries=0).files.delete(first.input_file_id)
    output = run_command("results", "--questions", "--ledger-dir", tmp_path)
    records = [json.loads(line) for line in output.stdout.splitlines()]
    questions = [None, None, *(prompt[-1]["content"] for prompt in PROMPTS[2:4])]
    assert [record["question"] for record in records] == questions
    assert [line.partition(" cannot")[0] for line in output.stderr.splitlines()] == [
        f"Batch {first.batch_id}: The input file {first.input_file_id}"
    ]


def test_reading_commands_leave_a_read_only_ledger_unchanged(directory):
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    directory.chmod(0o500)
    try:
        for arguments in (["jobs"], ["failures"], ["results"]):
            assert run_command(*arguments).exit_code == 0
    finally:
        directory.chmod(0o700)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def write_interrupted_job(directory: Path, base_url: str, uploaded: str | None = None) -> Job:
    """Write a job of three requests to a ledger that no run has open; with an uploaded file if one is given."""
    shard = Shard.of([Request(f"{n:032x}-0", "/v1/chat/completions", "m", b"{}") for n in range(3)])
    with closing(Ledger(directory, ScopeName("asking.py", "", f"{base_url}/"))) as ledger:
        job, _ = ledger.jobs.plan(shard)
        return ledger.jobs.mark_uploaded(job, uploaded) if uploaded else job


def test_all_commands_treat_an_interrupted_job_as_not_open(sandbox):
    """Each command names the interrupted job and points to `forget`."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    write_interrupted_job(directory, sandbox.base_url)
    for arguments in (["jobs"], ["watch"], ["cancel", "--all"]):
        result = run_command(*arguments)
        assert result.exit_code == 0
        assert "Interrupted: 1 job of asking.py" in result.stderr
        assert "`forget`" in result.stderr
    [job] = json.loads(run_command("jobs", "--json").stdout)
    assert (job["state"], job["status"]) == ("planned", "interrupted")
    assert "of them open: 0, interrupted: 1" in run_command("doctor").stdout
    reader = LedgerReader(directory)
    [history] = build_histories(reader.jobs(), reader.timelines(), now=0.0)
    assert history.end_state is EndState.DROPPED


def test_a_job_that_a_run_is_submitting_is_open_and_not_forgotten(sandbox):
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    with closing(Ledger(directory, ScopeName("asking.py", "", f"{sandbox.base_url}/"))) as ledger:
        ledger.jobs.plan(Shard.of([Request(f"{'a' * 32}-0", "/v1/chat/completions", "m", b"{}")]))
        [job] = json.loads(run_command("jobs", "--json").stdout)
        assert job["status"] == "planned"
        assert "of them open: 1, answers" in run_command("doctor").stdout
        forgotten = run_command("forget", "asking.py", "--yes")
        assert "1 request in progress, which stay" in forgotten.stderr
        assert "Nothing to forget" in forgotten.stdout
    assert json.loads(run_command("jobs", "--json").stdout)[0]["status"] == "interrupted"


def test_forget_drops_a_job_without_an_upload_without_calling_the_server(sandbox, monkeypatch):
    """No batch can exist without an upload."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    write_interrupted_job(directory, "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY")
    result = run_command("forget", "asking.py", "--yes")
    assert result.exit_code == 0
    assert "3 requests of interrupted jobs" in result.stderr
    assert "Forgot the outcomes of 3 requests" in result.stdout
    assert [job["status"] for job in json.loads(run_command("jobs", "--json").stdout)] == ["dropped"]


def test_forget_lost_releases_only_jobs_whose_batch_the_server_does_not_know(sandbox):
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only(max_requests_per_job=8)
    # The two batches are created concurrently → sort them by size.
    gone, there = (
        job["batch_id"]
        for job in sorted(
            json.loads(run_command("jobs", "--json").stdout), key=lambda job: job["requests"], reverse=True
        )
    )
    with closing(sqlite3.connect(directory / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET batch_id = 'batch_gone' WHERE batch_id = ?", (gone,))
    with pytest.raises(RunError, match="forget SCOPE --lost"):
        generate(wait=False)
    result = run_command("cancel", "batch_gone", "--yes")
    assert result.stdout == "batch_gone is not found.\n"
    assert "`forget SCOPE --lost`" in result.stderr

    assert "12 requests in progress, which stay." in run_command("forget", "asking.py", "--yes").stderr
    assert {job["state"] for job in json.loads(run_command("jobs", "--json").stdout)} == {"created"}
    result = run_command("forget", "asking.py", "--lost", "--yes")
    assert result.exit_code == 0
    assert "Released 1 job with a batch that the server does not know." in result.stdout
    jobs = {job["batch_id"]: (job["state"], job["status"]) for job in json.loads(run_command("jobs", "--json").stdout)}
    assert jobs == {"batch_gone": ("dropped", "not found"), there: ("created", "validating")}

    sandbox.configure(in_progress_seconds=0.0)
    generate()
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [4, 8, 8]


def test_forget_lost_keeps_every_answer(sandbox):
    """An answer of another job was paid for: a run after `--lost` submits the requests of the lost batch alone."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    generate(max_requests_per_job=8)
    jobs = json.loads(run_command("jobs", "--json").stdout)
    [lost] = [job["batch_id"] for job in jobs if job["requests"] == 4]
    with closing(sqlite3.connect(directory / "ledger.sqlite3")) as database, database:
        [(job_id,)] = database.execute("SELECT id FROM jobs WHERE batch_id = ?", (lost,))
        database.execute("UPDATE jobs SET batch_id = 'batch_gone', state = 'created' WHERE id = ?", (job_id,))
        database.execute("DELETE FROM answers WHERE request IN (SELECT id FROM requests WHERE job = ?)", (job_id,))
        database.execute("UPDATE requests SET state = 'asked' WHERE job = ?", (job_id,))
        database.execute("DELETE FROM job_counts WHERE job = ?", (job_id,))
    result = run_command("forget", "asking.py", "--lost", "--yes")
    assert result.exit_code == 0
    assert "8 answers, which stay; 4 requests in progress" in result.stderr
    assert "Forgot" not in result.stdout
    generate()
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches][2:] == [4]


def test_forget_lost_has_nothing_to_do_without_open_jobs(sandbox):
    generate()
    result = run_command("forget", "asking.py", "--lost", "--yes")
    assert "Nothing to forget." in result.stdout
    generate()
    assert len(sandbox.books().batches) == 1


def test_forget_keeps_an_interrupted_job_that_may_have_a_batch(sandbox):
    """A batch may be billed: without an answer of the server the job stays; a batch that is found is kept."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    client = openai.OpenAI(max_retries=0)
    line = {"custom_id": "a-0", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    upload = client.files.create(file=("f.jsonl", json.dumps(line).encode()), purpose="batch")
    job = write_interrupted_job(directory, sandbox.base_url, upload.id)
    made = client.batches.create(
        input_file_id=upload.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={KEY_METADATA: job.key},
    )
    sandbox.configure(api_keys=["another"])
    result = run_command("forget", "asking.py", "--yes")
    assert result.exit_code == 1
    assert "may have a batch at the server, and stays: " in result.stderr
    assert "Incorrect API key" in result.stderr
    assert "Interrupted: 1 job of asking.py" in run_command("jobs").stderr

    sandbox.configure(api_keys=None)
    result = run_command("forget", "asking.py", "--yes")
    assert result.exit_code == 0, result.output
    assert f"Batch {made.id} was found" in result.stdout
    assert [job["batch_id"] for job in json.loads(run_command("jobs", "--json").stdout)] == [made.id]


def test_forget_asks_for_confirmation_and_the_next_run_submits_again(sandbox):
    answers = generate()
    refused = run_command("forget", "asking.py", input="n\n")
    assert refused.exit_code == 1
    tokens_in, tokens_out = (
        sum(job[name] for job in json.loads(run_command("jobs", "--json").stdout)) for name in TOKENS
    )
    assert f"12 answers, which cost {tokens_in:,} tokens in and {tokens_out:,} out" in refused.stderr
    assert run_command("forget", "asking.py", "--yes").stdout == "Forgot the outcomes of 12 requests.\n"
    assert run_command("results").stdout == ""

    assert generate() == answers
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [12, 12]


def test_forget_keeps_jobs_in_progress_and_the_next_run_collects_them(sandbox):
    generate(PROMPTS[:4])
    submit_only()
    assert "8 requests in progress, which stay" in run_command("forget", "asking.py", "--yes").stderr
    assert None not in generate()
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [4, 4, 8]


def test_adopt_imports_a_batch_that_another_program_made(sandbox, tmp_path):
    """A run with the same requests then submits nothing, whatever `custom_id`s the batch had."""
    answers = generate([*PROMPTS, PROMPTS[0]], ledger_dir=str(tmp_path))
    client = openai.OpenAI(max_retries=0)
    [batch] = sandbox.books().batches
    requests = [json.loads(line) for line in client.files.content(batch["input_file_id"]).iter_lines()]
    sandbox.reset(Settings(in_progress_seconds=3_600.0))
    lines = [json.dumps(request | {"custom_id": f"row {n}"}) for n, request in enumerate(requests)]
    file = client.files.create(file=("elsewhere.jsonl", "\n".join(lines).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    assert "can be adopted when it has ended" in run_command("adopt", made.id, "asking.py").stderr
    sandbox.configure(in_progress_seconds=0.0)
    sandbox.settle()
    spelling = sandbox.base_url.replace("http://127.0.0.1", "HTTP://127.0.0.1")
    imported = run_command("adopt", made.id, "asking.py", "--base-url", spelling)
    assert "imported 13 answers; 0 requests without an answer" in imported.stdout
    assert imported.stderr == ""
    assert f"has batch {made.id} already" in run_command("adopt", made.id, "asking.py").stderr
    assert run_command("adopt", "batch_9", "another").exit_code == 1
    assert "Its scopes: asking.py" in run_command("failures", "another").stderr

    assert generate([*PROMPTS, PROMPTS[0]]) == answers
    assert len(sandbox.books().batches) == 1


def test_adopt_reports_answers_that_match_no_request_of_the_scope(sandbox, tmp_path):
    """The other program has another model and a limit of tokens."""
    generate(PROMPTS, ledger_dir=str(tmp_path))
    client = openai.OpenAI(max_retries=0)
    body = {"model": "gpt-4o", "messages": PROMPTS[0], "n": 1, "max_tokens": 9}
    line = {"custom_id": "row", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("elsewhere.jsonl", json.dumps(line).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    imported = run_command("adopt", made.id, "asking.py", "--ledger-dir", str(tmp_path))
    assert "imported 1 answer" in imported.stdout
    assert 'model differs: "gpt-4o" → ' in imported.stderr
    assert "max_tokens differs: 9 → " in imported.stderr


@pytest.fixture
def on_first_poll(monkeypatch):
    """Return a function that makes `watch` call an action after the first poll, and returns each poll's statuses."""
    shown = []

    def install(action) -> list:
        show = bars.Bars.show

        def show_and_act(self, jobs):
            show(self, jobs)
            shown.append({job.batch_id: job.status for job in jobs})
            if len(shown) == 1:
                action()

        monkeypatch.setattr(bars.Bars, "show", show_and_act)
        return shown

    return install


def test_watch_polls_until_all_jobs_have_ended_and_includes_new_jobs(sandbox, on_first_poll):
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only(max_requests_per_job=8)

    def meanwhile():
        submit_only([[{"role": "user", "content": "One more."}]])
        sandbox.configure(in_progress_seconds=0.0)

    shown = on_first_poll(meanwhile)
    result = run_command("watch", "--interval", "0.05")
    assert result.exit_code == 0
    assert list(shown[0].values()) == ["in_progress"] * 2
    assert list(shown[-1].values()) == ["completed"] * 3
    assert "13 of 13 requests; 3 completed" in result.stdout
    assert "not collected yet: asking.py." in result.stdout
    # `watch` reads the ledger but does not write to it.
    assert {job["status"] for job in json.loads(run_command("jobs", "--json").stdout)} != {"completed"}
    assert {job["status"] for job in json.loads(run_command("jobs", "--json", "--look").stdout)} == {"completed"}


def test_results_rejects_other_suffixes_and_missing_directories(sandbox, tmp_path):
    """The error names the file that the user gave, not the temporary one."""
    generate()
    for path, words in ((tmp_path / "a.csv", ".jsonl or .parquet"), (tmp_path / "no" / "a.jsonl", "No such file")):
        result = run_command("results", "-o", path)
        assert result.exit_code == 1
        assert words in result.stderr
        assert "unfinished" not in result.stderr


@pytest.mark.parametrize(
    ("variables", "arguments", "dialect", "line"),
    [
        ({}, [], "openai", "export OPENAI_BASE_URL=http://127.0.0.1:8000/v1"),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com"}, [], "azure", "OPENAI_API_VERSION=2024-10-21"),
        (
            {"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com/openai/v1/"},
            [],
            "azure-v1",
            "AZURE_OPENAI_ENDPOINT=http://127.0.0.1:8000/openai/v1/",
        ),
        (
            {"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"},
            [],
            "openai",
            "DISTILABEL_OPENAI_BATCH_PRICES=openai",
        ),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com"}, ["--dialect", "together"], "together", "/v1"),
    ],
)
def test_serve_imitates_the_server_of_the_environment(monkeypatch, variables, arguments, dialect, line):
    for name in ("AZURE_OPENAI_ENDPOINT", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    served = []
    monkeypatch.setattr("distilabel_openai_batch.sandbox.serve", lambda settings, **_: served.append(settings))
    assert run_command("serve", *arguments).exit_code == 0
    assert served[0].dialect == DIALECTS[dialect]
    greeting = server._greeting("http://127.0.0.1:8000/v1", served[0])
    assert line in greeting
    assert ("OPENAI_BASE_URL" not in greeting) == dialect.startswith("azure")
    assert re.match(r"The sandbox is listening at http://127\.0\.0\.1:8000(/openai)?(/v1)?/?\. ", greeting)
    assert (":8000/v1" not in greeting) == dialect.startswith("azure")


def test_serve_refuses_an_unknown_dialect():
    assert run_command("serve", "--dialect", "klingon").exit_code == 2


def test_serve_reports_a_port_in_use(sandbox):
    result = run_command("serve", "--port", sandbox.base_url.removesuffix("/v1").rpartition(":")[2])
    assert result.exit_code == 1
    assert "Choose another --port" in result.stderr


def test_watch_goes_on_while_a_run_may_add_jobs(sandbox, on_first_poll):
    """Between two Tasks of a pipeline there is a moment without an open job."""
    submit_only()
    sandbox.settle()
    running = Ledger(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]), ScopeName("asking.py", "", ""))

    def meanwhile():
        submit_only([[{"role": "user", "content": "One more."}]])
        running.close()

    shown = on_first_poll(meanwhile)
    assert run_command("watch", "--interval", "0.05").exit_code == 0
    assert list(shown[0].values()) == ["completed"]
    assert list(shown[-1].values()) == ["completed"] * 2


def test_watch_scope_ignores_jobs_of_other_scopes(sandbox, on_first_poll):
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only()
    add_scope(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]), "other.py", "", f"{sandbox.base_url}/")
    assert "No open jobs." in run_command("watch", "other.py").stdout
    shown = on_first_poll(lambda: sandbox.configure(in_progress_seconds=0.0))
    assert run_command("watch", "asking.py", "--interval", "0.05").exit_code == 0
    assert list(shown[-1].values()) == ["completed"]


def test_watch_ends_and_reports_jobs_that_the_server_does_not_know(sandbox):
    submit_only(max_requests_per_job=6)
    sandbox.reset()
    result = run_command("watch", "--interval", "0.05")
    assert result.exit_code == 0
    assert "2 not found" in result.stdout


def test_watch_reports_the_reason_of_a_rejected_batch(sandbox):
    sandbox.add_fault(BatchFault(kind="fail", value={"code": "model_not_found", "message": "There is no such model."}))
    submit_only(max_requests_per_job=6)
    result = run_command("watch", "--interval", "0.05")
    assert result.exit_code == 1
    [reason] = re.findall(r"The server rejected batch batch_\w+: (.*)", result.stderr)
    assert "There is no such model." in reason


def test_a_wrong_key_is_reported_with_the_api_message(sandbox):
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only()
    sandbox.configure(api_keys=["another"])
    for arguments in (["watch"], ["cancel", "--all", "--yes"], ["jobs", "--look"]):
        result = run_command(*arguments)
        assert result.exit_code == 1
        assert "Incorrect API key provided" in result.stderr


def test_cancel_asks_for_confirmation_and_the_next_run_resubmits(sandbox):
    assert run_command("cancel").exit_code == 2
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only()
    [batch] = sandbox.books().batches
    assert run_command("cancel", batch["id"], input="n\n").exit_code == 1
    assert not sandbox.calls("batches.cancel")
    result = run_command("cancel", batch["id"], "--yes")
    assert result.exit_code == 0
    assert re.fullmatch(rf"{batch['id']} is cancell(ed|ing)\.\n", result.stdout)
    sandbox.configure(in_progress_seconds=0.0)
    assert None not in generate()
    assert "No open jobs" in run_command("cancel", "--all").stdout


def test_cancel_takes_a_scope(sandbox):
    """Ended jobs of the scope stay as they are."""
    generate()
    assert "No open jobs" in run_command("cancel", "asking.py").stdout
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only([[{"role": "user", "content": "Say something else."}]])
    result = run_command("cancel", "asking.py", "--yes")
    assert result.exit_code == 0
    [batch] = [batch["id"] for batch in sandbox.books().batches if batch["request_counts"]["total"] == 1]
    assert re.fullmatch(rf"{batch} is cancell(ed|ing)\.\n", result.stdout)
    assert len(sandbox.calls("batches.cancel")) == 1


def test_open_jobs_at_two_servers_require_a_base_url(tmp_path, sandbox):
    """No call is made before --base-url selects the server of the key."""
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only(ledger_dir=str(tmp_path))
    with closing(Ledger(tmp_path, ScopeName("asking.py", "", "http://other.test/v1/"))) as ledger:
        job, _ = ledger.jobs.plan(Shard.of([Request("a-0", "/v1/chat/completions", "m", b"{}")]))
        ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), Batch("batch_1", "in_progress"))
    calls = len(sandbox.calls())
    result = run_command("cancel", "--all", "--yes", "--ledger-dir", tmp_path)
    assert result.exit_code == 1
    assert "Choose with --base-url" in result.stderr
    assert len(sandbox.calls()) == calls
    arguments = ("--base-url", sandbox.base_url.replace("127.0.0.1", "localhost"), "--ledger-dir", tmp_path)
    assert run_command("cancel", "--all", "--yes", *arguments).exit_code == 0
    assert len(sandbox.calls("batches.cancel")) == 1


def test_a_missing_key_is_reported_by_the_name_of_its_variable(sandbox, monkeypatch):
    sandbox.configure(in_progress_seconds=3_600.0)
    submit_only()
    monkeypatch.delenv("OPENAI_API_KEY")
    for arguments in (["watch"], ["doctor"]):
        result = run_command(*arguments)
        assert result.exit_code == 1
        assert "set the environment variable OPENAI_API_KEY" in result.output


def test_doctor_makes_two_calls_and_finds_no_problem(sandbox, monkeypatch):
    monkeypatch.setattr(doctor, "is_installed", lambda package: True)
    result = run_command("doctor")
    assert result.exit_code == 0, result.output
    assert [line[2:].partition(":")[0] for line in result.stdout.splitlines()] == [
        "versions",
        "extras",
        "ledger",
        "temporary files",
        "base URL",
        "key",
        "batches",
        "files",
    ]
    assert [call.name for call in sandbox.calls()] == ["batches.list", "files.list"]


PROBLEMS = {
    "wrong key": ({"OPENAI_API_KEY": "sk-wrong-one"}, "Incorrect API key provided", "create a new key"),
    "no key": ({"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "https://api.openai.com/v1"}, "no key", "Create a key at"),
    "no key for a local server": ({"OPENAI_API_KEY": ""}, "There is no key", "OPENAI_API_KEY=anything"),
    "key with a line feed": ({"OPENAI_API_KEY": "sk-good\n"}, "has spaces, quotes", "Set it to the key only"),
    "no URL": ({"OPENAI_BASE_URL": "api.openai.com"}, "is no valid address", "Use an address like"),
    "unclosed bracket": ({"OPENAI_BASE_URL": "http://[::1"}, "is no valid address", "Use an address like"),
    "invalid port": ({"OPENAI_BASE_URL": "http://127.0.0.1:v1"}, "is no valid address", "Use an address like"),
    "no server": ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "Failed to list the batches", "Check the base URL"),
    "no Azure key": (
        {"OPENAI_BASE_URL": "http://127.0.0.1:9/openai"},
        "AZURE_OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY=anything",
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_doctor_reports_a_problem_with_its_fix_and_never_a_key(problem, sandbox, monkeypatch):
    environment, text, fix = PROBLEMS[problem]
    sandbox.configure(api_keys=["sk-good"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run_command("doctor")
    assert result.exit_code == 1
    assert text in result.stdout
    assert fix in result.stdout.partition("→")[2]
    assert "sk-wrong-one" not in result.output
    assert "sk-good" not in result.output


def test_doctor_finds_a_base_url_without_its_version(sandbox):
    """The server answers 404 to each call: an address without a version may be valid otherwise."""
    address = sandbox.base_url.removesuffix("/v1")
    result = run_command("doctor", "--base-url", address)
    assert result.exit_code == 1
    assert f"{address} has neither batches nor files: it answers 404." in result.stdout
    assert f"→ The base URL lacks its version: set it to {sandbox.base_url}\n" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_no_color_turns_off_colours_in_a_terminal(directory):
    for arguments in (["jobs"], ["jobs", "unknown"], ["doctor", "--base-url", "nowhere"]):
        terminal, child_end = os.openpty()
        environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm"}
        process = subprocess.Popen([COMMAND, *arguments], stdout=child_end, stderr=child_end, env=environment)
        os.close(child_end)
        printed = b""
        with suppress(OSError):
            while chunk := os.read(terminal, 4_096):
                printed += chunk
        os.close(terminal)
        process.wait()
        assert printed
        assert not re.search(rb"\x1b\[(3[0-9]|9[0-9])m", printed)


def test_doctor_lists_missing_extras_without_a_problem(sandbox, monkeypatch):
    monkeypatch.setattr(doctor, "is_installed", lambda package: package not in ("genai-prices", "ray"))
    result = run_command("doctor")
    assert result.exit_code == 0
    assert re.search(r"✓ extras: azure, report, sandbox.*; not installed:\n", result.stdout)
    for extra in ("prices", "ray"):
        assert re.search(rf"    {extra}, for .*: pip install 'distilabel-openai-batch\[{extra}\]'\n", result.stdout)


def test_doctor_reports_a_damaged_ledger(sandbox, tmp_path):
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database" * 100)
    result = run_command("doctor", "--ledger-dir", tmp_path)
    assert result.exit_code == 1
    assert "is damaged, or is no ledger" in result.stdout


def test_serve_prints_its_address_and_answers_until_stopped():
    with subprocess.Popen([COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            printed = ""
            while not (address := re.search(r"http://127\.0\.0\.1:\d+/v1", printed)):
                line = server.stdout.readline()
                assert line, printed
                printed += line
            answer = httpx.get(f"{address[0]}/batches", headers={"Authorization": "Bearer any"})
            assert answer.json()["data"] == []
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)


def test_serve_passes_its_options_to_the_sandbox(monkeypatch):
    settings_used = {}
    monkeypatch.setattr(sandbox_package, "serve", lambda settings, **_: settings_used.update(settings.model_dump()))
    options = ["--in-progress-seconds", 3, "--window-seconds", 2, "--fail-share", 0.25, "--fail-status", 429]
    options += ["--alias", "a=gpt-6-luna", "--alias", "b=gpt-4o-mini"]
    assert run_command("serve", *options).exit_code == 0
    assert (settings_used["in_progress_seconds"], settings_used["window_seconds"]) == (3.0, 2.0)
    assert settings_used["aliases"] == {"a": "gpt-6-luna", "b": "gpt-4o-mini"}
    [failure] = settings_used["failures"]
    assert (failure["share"], failure["status"]) == (0.25, 429)
    assert run_command("serve").exit_code == 0
    assert Settings(**settings_used) == Settings(prompt_cache=True)
    assert run_command("serve", "--fail-share", 2).exit_code == 2
    assert run_command("serve", "--alias", "gpt-6-luna").exit_code == 2


def test_serve_without_the_extra_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "distilabel_openai_batch.sandbox", None)
    result = run_command("serve")
    assert result.exit_code == 1
    assert "pip install 'distilabel-openai-batch[sandbox]'" in result.output
