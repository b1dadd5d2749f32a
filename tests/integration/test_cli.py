"""The command line."""

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
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from typer.testing import CliRunner

from distilabel_openai_batch import OpenAIBatchLLM, RunError, __version__
from distilabel_openai_batch import sandbox as sandbox_package
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.display import bars
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import Job, ScopeName
from distilabel_openai_batch.operations import doctor
from distilabel_openai_batch.report.history import Ending, histories
from distilabel_openai_batch.sandbox import RequestFailure, Settings
from tests.support.environment import API_KEY, ROOT, in_a_new_process
from tests.support.ledgers import LedgerWriter

COMMAND = Path(sys.executable).with_name("distilabel-openai-batch")
COMMANDS = [
    "jobs",
    "costs",
    "report",
    "watch",
    "failures",
    "show",
    "results",
    "cancel",
    "adopt",
    "forget",
    "doctor",
    "serve",
]
READING = [
    ["jobs"],
    ["costs"],
    ["watch"],
    ["failures"],
    ["show", "batch_1"],
    ["results"],
    ["cancel", "--all"],
    ["forget", "x"],
]
QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]


def run(*arguments: object, **options):
    """A command, of which a user sees words and no traceback."""
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    assert "Traceback" not in ran.output
    assert API_KEY not in ran.output
    return ran


def ask(questions=QUESTIONS, **fields) -> list[str | None]:
    """A run in a process of its own, but for the process."""
    llm = in_a_new_process(OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, **fields))
    return [output["generations"][0] for output in llm.generate(questions)]


@pytest.fixture(autouse=True, scope="module")
def a_script():
    """Its name is the scope's."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["asking.py"])
        yield


def leave(questions=QUESTIONS, **fields) -> None:
    """A run that submits, and is gone."""
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        ask(questions, wait=False, **fields)


@pytest.fixture(scope="module")
def asked(a_script, running_sandbox, tmp_path_factory) -> Path:
    """The directory of a ledger with two jobs of twelve requests, two of which failed."""
    directory = tmp_path_factory.mktemp("asked")
    failures = [
        RequestFailure(contains="number 3", code="bad_prompt", message="No threes, please."),
        RequestFailure(contains="number 9", status=422, message="No nines."),
    ]
    running_sandbox.reset(Settings(failures=failures))
    ask(max_requests_per_job=8, ledger_dir=str(directory), base_url=running_sandbox.base_url, api_key=API_KEY)
    return directory


@pytest.fixture
def directory(asked, monkeypatch) -> Path:
    """The same, for the environment to choose."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(asked))
    return asked


def test_it_says_which_version_it_is():
    """As a report of a bug needs it."""
    assert run("--version").output == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_helpful(arguments):
    """It says what the command is for."""
    ran = run(*arguments)
    assert ran.exit_code == 0
    assert re.search("Batch API|ledger", ran.output)


def test_completion_knows_scopes_and_batches(directory, monkeypatch):
    """As the shell asks for them; without a ledger there are none."""
    monkeypatch.setenv("_DISTILABEL_OPENAI_BATCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "distilabel-openai-batch show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    ids = {job.batch_id for job in LedgerReader(directory).jobs()}
    complete = {"prog_name": "distilabel-openai-batch"}
    assert set(run(**complete).output.split()) == ids
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", "/nowhere")
    assert run(**complete).output.split() == []


def test_jobs_are_a_table(directory):
    """A line for each, with what was answered and what failed."""
    lines = run("jobs").stdout.splitlines()
    assert lines[0].split() == ["scope", "batch", "status", "answered", "failed", "cost", "saved", "age", "took"]
    numbers = sorted(line.split()[2:7] for line in lines[1:-1])
    assert numbers == [["completed", "3/4", "1", "?", "?"], ["completed", "7/8", "1", "?", "?"]]
    assert lines[-1].split() == ["total", "10/12", "2", "?", "?"]
    assert run("jobs").stderr.count("prices are those of OpenAI and Azure alone") == 1


def test_jobs_as_json_are_what_the_table_has_and_more(directory):
    """Numbers, not words."""
    jobs = json.loads(run("jobs", "--json").stdout)
    assert sorted((job["requests"], job["answered"], job["failed"]) for job in jobs) == [(4, 3, 1), (8, 7, 1)]
    for job in jobs:
        assert job["batch_id"].startswith("batch_")
        assert (job["status"], job["model"]) == ("completed", "gpt-4o-mini")
        assert job["scope"] == job["pipeline"]
        assert job["took_seconds"] == pytest.approx(job["ended_at"] - job["created_at"])
        assert job["age_seconds"] >= job["took_seconds"]
        assert job["eta_seconds"] is None
        assert job["tokens_in"] > job["answered"]


@pytest.mark.parametrize("charset", ["latin-1", "ascii"])
@pytest.mark.parametrize("command", ["jobs", "failures", "doctor"])
def test_an_encoding_may_lack_what_is_said(command, charset, sandbox):
    """A dash or a tick is replaced; all else is there."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave()
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    with closing(sqlite3.connect(directory / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE requests SET state = 'failed', error = 'No – not that.' WHERE id = 1")
    ran = CliRunner(charset=charset).invoke(app, [command])
    assert ran.exception is None, ran.exception
    assert {"jobs": "asking.py", "failures": "not that.", "doctor": "ledger: "}[command] in ran.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_a_command_may_have_no_stdout(sandbox):
    """What is to be told on stderr is; `results` needs one, or a file."""
    leave()
    sandbox.settle()
    exit_codes = {"jobs": 0, "watch": 0, "failures": 0, "results": 1}
    for command, exit_code in exit_codes.items():
        closed = ["sh", "-c", 'exec "$0" "$@" >&-', COMMAND, command]
        ran = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert "Traceback" not in ran.stderr
        assert ran.returncode == exit_code, ran.stderr
    assert "--output" in ran.stderr


def test_whole_lines_go_into_a_pipe(tmp_path):
    """However long names and messages are."""
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
        [line] = [line for line in run(command, "--ledger-dir", tmp_path).stdout.splitlines() if words[0] in line]
        assert all(word in line for word in words)


def test_a_job_is_shown(directory):
    """By the id of its batch, to people and programs."""
    job = json.loads(run("jobs", "--json").stdout)[0]
    assert json.loads(run("show", job["batch_id"], "--json").stdout) == job | {"age_seconds": ANY}
    shown = run("show", job["batch_id"]).stdout
    assert f"{job['requests']}; {job['answered']} answered, {job['failed']} failed" in shown
    assert job["input_file_id"] in shown


def test_a_batch_that_is_not_known_is_said_so(directory):
    """Wherever one is named, with those that are."""
    batches = [job.batch_id for job in LedgerReader(directory).jobs()]
    for command in (["show", "batch_9"], ["cancel", "batch_9"]):
        ran = run(*command)
        assert ran.exit_code == 1
        assert "has no batch batch_9" in ran.stderr
        assert all(batch in ran.stderr for batch in batches)


def test_failures_are_grouped_by_reason(directory):
    """With the API's words and the custom_ids."""
    output = run("failures").stdout
    assert re.search(r"1 +400 +bad_prompt +No threes, please\. +[0-9a-f]{32}-0", output)
    assert re.search(r"1 +422 .*No nines\.", output)


def test_failures_as_jsonl_are_one_each(directory):
    """With their batch."""
    failures = [json.loads(line) for line in run("failures", "--jsonl").stdout.splitlines()]
    assert sorted(failure["message"] for failure in failures) == ["No nines.", "No threes, please."]
    batches = {job.batch_id for job in LedgerReader(directory).jobs()}
    assert {failure["batch_id"] for failure in failures} == batches
    assert {failure["attempts"] for failure in failures} == {1}


def test_results_are_the_answers(directory):
    """As the API gave them, and their texts; it needs no scope where there is one."""
    records = [json.loads(line) for line in run("results").stdout.splitlines()]
    assert len(records) == 10
    for record in records:
        assert record["generations"] == [record["response"]["choices"][0]["message"]["content"]]
        assert record["tokens_out"] == record["response"]["usage"]["completion_tokens"]


def test_results_go_into_a_file(directory, tmp_path):
    """JSONL or Parquet, by its name, with the same in both."""
    lines, rows = tmp_path / "results.jsonl", tmp_path / "results.parquet"
    for path in (lines, rows):
        assert run("results", "-o", path).exit_code == 0
    written = [json.loads(line) for line in lines.read_bytes().splitlines()]
    read = pyarrow.parquet.read_table(rows).to_pylist()
    assert [row | {"response": orjson.loads(row["response"])} for row in read] == written
    assert sorted(tmp_path.iterdir()) == [lines, rows]


def test_results_that_cannot_be_written_are_said_so(directory, tmp_path):
    """And leave nothing."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "such.jsonl", tmp_path / "file" / "a.jsonl", tmp_path / f"{'a' * 245}.jsonl"):
        ran = run("results", "-o", path)
        assert ran.exit_code == 1
        assert f"{path} cannot be written" in ran.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_without_a_ledger_that_is_said(arguments, tmp_path):
    """And none is made."""
    ran = run(*arguments, "--ledger-dir", tmp_path / "none")
    assert ran.exit_code == 1
    assert "There is no ledger in" in ran.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="homes are found otherwise there")
def test_without_a_home_a_directory_has_to_be_named(monkeypatch, tmp_path):
    """As in a container whose user nobody knows. Once it is named, all is well."""

    def nobody(_uid):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("DISTILABEL_OPENAI_BATCH_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    ran = run("jobs")
    assert ran.exit_code == 1
    for way in ("`ledger_dir`", "--ledger-dir", "$DISTILABEL_OPENAI_BATCH_DIR"):
        assert way in ran.stderr
    ran = run("doctor", "--base-url", "nowhere")
    assert "✗ ledger: The ledger cannot lie in ~/.cache/distilabel/openai_batch" in ran.stdout
    assert "base URL" in ran.stdout
    assert "✓ ledger" in run("doctor", "--base-url", "nowhere", "--ledger-dir", tmp_path).stdout


FOREIGN = {
    "another program's": (b"CREATE TABLE t (x)", "a database of another program"),
    "a newer one": (b"PRAGMA application_id = 0x646F6261; PRAGMA user_version = 99", "by a newer release"),
    "none": (None, "is damaged, or is no ledger"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_file_that_is_no_ledger_is_left_alone(kind, arguments, tmp_path):
    """And named."""
    path = tmp_path / "ledger.sqlite3"
    script, reason = FOREIGN[kind]
    if script:
        with sqlite3.connect(path) as database:
            database.executescript(script.decode())
        database.close()
    else:
        path.write_bytes(b"not a database" * 100)
    before = path.read_bytes()
    ran = run(*arguments, "--ledger-dir", tmp_path)
    assert ran.exit_code == 1
    assert reason in ran.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def scope_of(directory, *name) -> None:
    """Has a ledger know a scope."""
    with closing(Ledger(directory, ScopeName(*name))) as ledger:
        ledger.submissions.keep_rows([], None)


def test_an_empty_ledger_has_nothing(tmp_path, monkeypatch):
    """Which is no error; whether it is just being made or nothing was asked."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    said = {"jobs": "No jobs.", "watch": "No open jobs.", "failures": "No failed requests."}
    (tmp_path / "ledger.sqlite3").touch()
    for _ in range(2):
        for command, words in said.items():
            ran = run(command)
            assert (ran.exit_code, ran.stdout.strip()) == (0, words)
        assert json.loads(run("jobs", "--json").stdout) == []
        scope_of(tmp_path, "pipeline", "task", "http://127.0.0.1:9/v1/")
    assert run("results").stdout == ""
    assert "Nothing to forget" in run("forget", "pipeline").stdout


def test_looking_leaves_nothing_behind(directory):
    """No file beside the ledger, nothing in it, and it need not be writable."""
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    directory.chmod(0o500)
    try:
        for arguments in (["jobs"], ["failures"], ["results"]):
            assert run(*arguments).exit_code == 0
    finally:
        directory.chmod(0o700)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


WRITER = """
import sys
from pathlib import Path
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.api.requests import Request, Shard

ledger, written = Ledger(Path(sys.argv[1]), ScopeName("writing", "", "http://127.0.0.1:9/v1/")), 0
print("writing", flush=True)
import os, select
while not select.select([sys.stdin], [], [], 0)[0]:
    request = Request(f"{written:032x}-0", "/v1/chat/completions", "m", b"{}")
    ledger.jobs.plan(Shard.of([request]))
    written += 1
ledger.close()
print(written)
"""


def test_it_looks_while_a_pipeline_writes(tmp_path):
    """Neither hinders the other, and each look sees whole transactions."""
    arguments = [sys.executable, "-c", WRITER, tmp_path]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        seen = []
        while len(seen) < 20 or seen[-1] == seen[0]:
            jobs = json.loads(run("jobs", "--json", "--ledger-dir", tmp_path).stdout)
            assert {job["requests"] for job in jobs} <= {1}
            seen.append(len(jobs))
        written, _ = writer.communicate("\n")
    assert seen == sorted(seen)
    assert int(written) == len(json.loads(run("jobs", "--json", "--ledger-dir", tmp_path).stdout))


def test_a_scope_is_chosen_by_its_name(tmp_path):
    """In full, or by its pipeline's alone where that says enough; else those that there are are named."""
    for name in (("p", "a", "http://one/v1/"), ("p", "b", "http://one/v1/"), ("q", "a", "http://one/v1/")):
        scope_of(tmp_path, *name)
    scope_of(tmp_path, "q", "a", "http://two/v1/")
    chosen = {"p/a": 0, "p": 1, "q/a": 1, "nobody": 1}
    for scope, exit_code in chosen.items():
        assert run("results", scope, "--ledger-dir", tmp_path).exit_code == exit_code
    assert "p/a --base-url http://one/v1/" in run("results", "p", "--ledger-dir", tmp_path).stderr
    for command in (["jobs"], ["watch"], ["costs"], ["report"], ["failures"], ["results"], ["forget"]):
        ran = run(*command, "nobody", "--ledger-dir", tmp_path)
        assert ran.exit_code == 1
        assert "has no scope nobody. Its scopes: q/a, p/b, p/a" in ran.stderr
    assert run("results", "q", "--base-url", "http://two/v1", "--ledger-dir", tmp_path).exit_code == 0


def test_of_two_scopes_that_look_alike_one_can_be_chosen(tmp_path):
    """A pipeline's Task and a submission may have one name: as it is listed each can be asked for."""
    with closing(LedgerWriter(tmp_path)) as writer:
        for number, name in enumerate((("p", "s"), ("p/s", "")), 1):
            writer.job(writer.scope(*name), 0.0, requests=number)
    there = ["--ledger-dir", tmp_path]
    for command in ("results", "forget"):
        ran = run(command, "p/s", *there)
        assert ran.exit_code == 1
        listed = [line.split()[0] for line in ran.stderr.splitlines() if "--base-url" in line]
        assert listed == ["p//s", "p/s//"]
    requests = [job["requests"] for scope in listed for job in json.loads(run("jobs", scope, "--json", *there).stdout)]
    assert requests == [1, 2]
    assert "Forgot the outcomes of 2 requests" in run("forget", "p/s//", "--yes", *there).stdout
    assert [run("results", scope, *there).exit_code for scope in listed] == [0, 0]
    assert run("results", "p/s//", *there).stdout == ""
    assert "1 answer" in run("forget", "p//s", *there, input="n\n").stderr


def test_of_many_scopes_a_handful_is_named(tmp_path):
    """The one that was meant first, then the latest."""
    for number in range(9):
        scope_of(tmp_path, "judge" if number == 1 else f"p{number}", "", "http://one/v1/")
    assert "Its scopes: judge, p8, p7, p6, p5 and 4 more" in run("jobs", "jugde", "--ledger-dir", tmp_path).stderr
    several = run("results", "--ledger-dir", tmp_path).stderr
    assert several.count("--base-url") == 5
    assert "and 4 earlier scopes" in several


def interrupted(directory: Path, base_url: str, uploaded: str | None = None) -> Job:
    """A job whose run was gone before it had a batch, and its three requests."""
    shard = Shard.of([Request(f"{n:032x}-0", "/v1/chat/completions", "m", b"{}") for n in range(3)])
    with closing(Ledger(directory, ScopeName("asking.py", "", f"{base_url}/"))) as ledger:
        job, _ = ledger.jobs.plan(shard)
        return ledger.jobs.mark_uploaded(job, uploaded) if uploaded else job


def test_all_commands_say_the_same_of_a_job_that_was_interrupted(sandbox):
    """It is not open, and has nothing to watch or to cancel; whoever looks is told what to do."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    interrupted(directory, sandbox.base_url)
    for arguments in (["jobs"], ["watch"], ["cancel", "--all"]):
        ran = run(*arguments)
        assert ran.exit_code == 0
        assert "Interrupted: 1 job of asking.py" in ran.stderr
        assert "`forget`" in ran.stderr
    [job] = json.loads(run("jobs", "--json").stdout)
    assert (job["state"], job["status"]) == ("planned", "interrupted")
    assert "of them open: 0, interrupted: 1" in run("doctor").stdout
    reader = LedgerReader(directory)
    [history] = histories(reader.jobs(), reader.timelines(), now=0.0)
    assert history.ending is Ending.DROPPED


def test_a_job_that_a_run_is_submitting_is_open(sandbox):
    """For all commands, though it has no batch yet; and it is not dropped."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    with closing(Ledger(directory, ScopeName("asking.py", "", f"{sandbox.base_url}/"))) as ledger:
        ledger.jobs.plan(Shard.of([Request(f"{'a' * 32}-0", "/v1/chat/completions", "m", b"{}")]))
        [job] = json.loads(run("jobs", "--json").stdout)
        assert job["status"] == "planned"
        assert "of them open: 1, answers" in run("doctor").stdout
        said = run("forget", "asking.py", "--yes")
        assert "1 request in progress, which stay" in said.stderr
        assert "Nothing to forget" in said.stdout
    assert json.loads(run("jobs", "--json").stdout)[0]["status"] == "interrupted"


def test_a_job_without_an_upload_is_forgotten_without_asking_anybody(sandbox, monkeypatch):
    """No batch can have been made of it: the next run buys its requests."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    interrupted(directory, "http://127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY")
    ran = run("forget", "asking.py", "--yes")
    assert ran.exit_code == 0
    assert "3 requests of interrupted jobs" in ran.stderr
    assert "Forgot the outcomes of 3 requests" in ran.stdout
    assert [job["status"] for job in json.loads(run("jobs", "--json").stdout)] == ["dropped"]


def test_a_job_whose_batch_is_gone_is_let_go_of(sandbox):
    """Every run of its Task would end with it. What the server still has is under way, and stays."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    sandbox.configure(in_progress_seconds=3_600.0)
    leave(max_requests_per_job=8)
    # The two are made side by side: either may be the first.
    gone, there = (
        job["batch_id"]
        for job in sorted(json.loads(run("jobs", "--json").stdout), key=lambda job: job["requests"], reverse=True)
    )
    with closing(sqlite3.connect(directory / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE jobs SET batch_id = 'batch_gone' WHERE batch_id = ?", (gone,))
    with pytest.raises(RunError, match="forget SCOPE --lost"):
        ask(wait=False)
    ran = run("cancel", "batch_gone", "--yes")
    assert ran.stdout == "batch_gone is not found.\n"
    assert "`forget SCOPE --lost`" in ran.stderr

    assert "12 requests in progress, which stay." in run("forget", "asking.py", "--yes").stderr
    assert {job["state"] for job in json.loads(run("jobs", "--json").stdout)} == {"created"}
    ran = run("forget", "asking.py", "--lost", "--yes")
    assert ran.exit_code == 0
    assert "Released 1 job with a batch that the server does not know." in ran.stdout
    jobs = {job["batch_id"]: (job["state"], job["status"]) for job in json.loads(run("jobs", "--json").stdout)}
    assert jobs == {"batch_gone": ("dropped", "not found"), there: ("created", "validating")}

    sandbox.configure(in_progress_seconds=0.0)
    ask()
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [4, 8, 8]


def test_a_batch_of_an_interrupted_job_is_not_forgotten(sandbox):
    """It was paid for: the server is asked whether there is one, and where it cannot be asked the job stays."""
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    client = openai.OpenAI(max_retries=0)
    line = {"custom_id": "a-0", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    upload = client.files.create(file=("f.jsonl", json.dumps(line).encode()), purpose="batch")
    lost = interrupted(directory, sandbox.base_url, upload.id)
    made = client.batches.create(
        input_file_id=upload.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={KEY_METADATA: lost.key},
    )
    sandbox.configure(api_keys=["another"])
    ran = run("forget", "asking.py", "--yes")
    assert ran.exit_code == 1
    assert "may have a batch at the server, and stays: " in ran.stderr
    assert "Incorrect API key" in ran.stderr
    assert "Interrupted: 1 job of asking.py" in run("jobs").stderr

    sandbox.configure(api_keys=None)
    ran = run("forget", "asking.py", "--yes")
    assert ran.exit_code == 0, ran.output
    assert f"Batch {made.id} was found" in ran.stdout
    assert [job["batch_id"] for job in json.loads(run("jobs", "--json").stdout)] == [made.id]


def test_a_scope_that_was_forgotten_is_bought_again(sandbox):
    """After it was said what it cost; and not before it was confirmed."""
    answers = ask()
    refused = run("forget", "asking.py", input="n\n")
    assert refused.exit_code == 1
    tokens_in, tokens_out = (sum(job[name] for job in json.loads(run("jobs", "--json").stdout)) for name in TOKENS)
    assert f"12 answers, which cost {tokens_in:,} tokens in and {tokens_out:,} out" in refused.stderr
    assert run("forget", "asking.py", "--yes").stdout == "Forgot the outcomes of 12 requests.\n"
    assert run("results").stdout == ""

    assert ask() == answers
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [12, 12]


TOKENS = ("tokens_in", "tokens_out")


def test_jobs_under_way_are_not_forgotten(sandbox):
    """The next run collects them as ever, and buys only what was answered before."""
    ask(QUESTIONS[:4])
    leave()
    assert "8 requests in progress, which stay" in run("forget", "asking.py", "--yes").stderr
    assert None not in ask()
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [4, 4, 8]


def test_a_batch_made_elsewhere_is_adopted(sandbox, tmp_path):
    """A run that asks the same buys nothing; whatever the requests were called there."""
    answers = ask([*QUESTIONS, QUESTIONS[0]], ledger_dir=str(tmp_path))
    client = openai.OpenAI(max_retries=0)
    [batch] = sandbox.books().batches
    requests = [json.loads(line) for line in client.files.content(batch["input_file_id"]).iter_lines()]
    sandbox.reset(Settings(in_progress_seconds=3_600.0))
    lines = [json.dumps(request | {"custom_id": f"row {n}"}) for n, request in enumerate(requests)]
    file = client.files.create(file=("elsewhere.jsonl", "\n".join(lines).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    assert "can be adopted when it has ended" in run("adopt", made.id, "asking.py").stderr
    sandbox.configure(in_progress_seconds=0.0)
    sandbox.settle()
    assert "imported 13 answers; 0 requests without an answer" in run("adopt", made.id, "asking.py").stdout
    assert f"has batch {made.id} already" in run("adopt", made.id, "asking.py").stderr
    assert run("adopt", "batch_9", "another").exit_code == 1
    assert "Its scopes: asking.py" in run("failures", "another").stderr

    assert ask([*QUESTIONS, QUESTIONS[0]]) == answers
    assert len(sandbox.books().batches) == 1


@pytest.fixture
def on_first_look(monkeypatch):
    """Has something done once `watch` has shown how jobs are."""
    shown = []

    def then(do) -> list:
        show = bars.Bars.show

        def and_do(self, jobs):
            show(self, jobs)
            shown.append({job.batch_id: job.status for job in jobs})
            if len(shown) == 1:
                do()

        monkeypatch.setattr(bars.Bars, "show", and_do)
        return shown

    return then


def test_watch_goes_on_until_the_jobs_of_a_run_that_left_have_ended(sandbox, on_first_look):
    """Whoever made them, and however many come meanwhile."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave(max_requests_per_job=8)

    def meanwhile():
        leave([[{"role": "user", "content": "One more."}]])
        sandbox.configure(in_progress_seconds=0.0)

    shown = on_first_look(meanwhile)
    ran = run("watch", "--interval", "0.05")
    assert ran.exit_code == 0
    assert list(shown[0].values()) == ["in_progress"] * 2
    assert list(shown[-1].values()) == ["completed"] * 3
    assert "13 of 13 requests; 3 completed" in ran.stdout
    assert "not collected yet: asking.py." in ran.stdout
    # The ledger was only looked at.
    assert {job["status"] for job in json.loads(run("jobs", "--json").stdout)} != {"completed"}
    assert {job["status"] for job in json.loads(run("jobs", "--json", "--look").stdout)} == {"completed"}


def test_answers_are_written_as_jsonl_or_parquet(sandbox, tmp_path):
    """Any other ending is a mistake, and so is a directory that is not there: they are told by the file's own name."""
    ask()
    for path, words in ((tmp_path / "a.csv", ".jsonl or .parquet"), (tmp_path / "no" / "a.jsonl", "No such file")):
        ran = run("results", "-o", path)
        assert ran.exit_code == 1
        assert words in ran.stderr
        assert "unfinished" not in ran.stderr


def test_a_port_that_is_taken_is_told(sandbox):
    """In a sentence."""
    ran = run("serve", "--port", sandbox.base_url.removesuffix("/v1").rpartition(":")[2])
    assert ran.exit_code == 1
    assert "Choose another --port" in ran.stderr


def test_watch_goes_on_while_a_run_may_make_more_jobs(sandbox, on_first_look):
    """Between two Tasks of a pipeline there is no job for a moment."""
    leave()
    sandbox.settle()
    running = Ledger(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]), ScopeName("asking.py", "", ""))

    def meanwhile():
        leave([[{"role": "user", "content": "One more."}]])
        running.close()

    shown = on_first_look(meanwhile)
    assert run("watch", "--interval", "0.05").exit_code == 0
    assert list(shown[0].values()) == ["completed"]
    assert list(shown[-1].values()) == ["completed"] * 2


def test_watch_can_be_told_what_to_watch(sandbox, on_first_look):
    """Jobs of other scopes neither show nor keep it waiting."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave()
    scope_of(Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"]), "other.py", "", f"{sandbox.base_url}/")
    assert "No open jobs." in run("watch", "other.py").stdout
    shown = on_first_look(lambda: sandbox.configure(in_progress_seconds=0.0))
    assert run("watch", "asking.py", "--interval", "0.05").exit_code == 0
    assert list(shown[-1].values()) == ["completed"]


def test_watch_ends_though_the_server_has_lost_a_job(sandbox):
    """Which is said, and hides no other one."""
    leave(max_requests_per_job=6)
    sandbox.reset()
    ran = run("watch", "--interval", "0.05")
    assert ran.exit_code == 0
    assert "2 not found" in ran.stdout


def test_with_a_wrong_key_nothing_is_watched_or_cancelled(sandbox):
    """The API's words, and not the key."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave()
    sandbox.configure(api_keys=["another"])
    for arguments in (["watch"], ["cancel", "--all", "--yes"], ["jobs", "--look"]):
        ran = run(*arguments)
        assert ran.exit_code == 1
        assert "Incorrect API key provided" in ran.stderr


def test_jobs_are_cancelled_when_that_was_confirmed(sandbox):
    """What they answered is kept by the next run; without a job, or with a wrong use, nothing is."""
    assert run("cancel").exit_code == 2
    sandbox.configure(in_progress_seconds=3_600.0)
    leave()
    [batch] = sandbox.books().batches
    assert run("cancel", batch["id"], input="n\n").exit_code == 1
    assert not sandbox.calls("batches.cancel")
    ran = run("cancel", batch["id"], "--yes")
    assert ran.exit_code == 0
    assert re.fullmatch(rf"{batch['id']} is cancell(ed|ing)\.\n", ran.stdout)
    sandbox.configure(in_progress_seconds=0.0)
    assert None not in ask()
    assert "No open jobs" in run("cancel", "--all").stdout


def test_one_key_is_for_one_server(tmp_path, sandbox):
    """Where open jobs are at several, one has to be chosen before anything is sent."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave(ledger_dir=str(tmp_path))
    other = sandbox.base_url.replace("127.0.0.1", "localhost")
    leave(ledger_dir=str(tmp_path), base_url=other)
    calls = len(sandbox.calls())
    ran = run("cancel", "--all", "--yes", "--ledger-dir", tmp_path)
    assert ran.exit_code == 1
    assert "Choose with --base-url" in ran.stderr
    assert len(sandbox.calls()) == calls
    assert run("cancel", "--all", "--yes", "--base-url", other, "--ledger-dir", tmp_path).exit_code == 0
    assert len(sandbox.calls("batches.cancel")) == 1


def test_without_a_key_that_is_said(sandbox, monkeypatch):
    """By the name of its variable."""
    sandbox.configure(in_progress_seconds=3_600.0)
    leave()
    monkeypatch.delenv("OPENAI_API_KEY")
    for arguments in (["watch"], ["doctor"]):
        ran = run(*arguments)
        assert ran.exit_code == 1
        assert "set the environment variable OPENAI_API_KEY" in ran.output


def test_the_doctor_finds_nothing_wrong(sandbox, monkeypatch):
    """With two calls, neither of which costs anything."""
    monkeypatch.setattr(doctor, "is_installed", lambda package: True)
    ran = run("doctor")
    assert ran.exit_code == 0, ran.output
    assert [line[2:].partition(":")[0] for line in ran.stdout.splitlines()] == [
        "versions",
        "extras",
        "ledger",
        "base URL",
        "key",
        "batches",
        "files",
    ]
    assert [call.name for call in sandbox.calls()] == ["batches.list", "files.list"]


SICK = {
    "wrong key": ({"OPENAI_API_KEY": "sk-wrong-one"}, "Incorrect API key provided", "create a new key"),
    "no key": ({"OPENAI_API_KEY": "", "OPENAI_BASE_URL": "https://api.openai.com/v1"}, "no key", "Create a key at"),
    "no key for a local one": ({"OPENAI_API_KEY": ""}, "There is no key", "OPENAI_API_KEY=anything"),
    "key with a line feed": ({"OPENAI_API_KEY": "sk-good\n"}, "has spaces, quotes", "Set it to the key only"),
    "no address": ({"OPENAI_BASE_URL": "api.openai.com"}, "is no valid address", "Use an address like"),
    "brackets that do not close": ({"OPENAI_BASE_URL": "http://[::1"}, "is no valid address", "Use an address like"),
    "port that is none": ({"OPENAI_BASE_URL": "http://127.0.0.1:v1"}, "is no valid address", "Use an address like"),
    "nobody there": ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "Failed to list the batches", "Check the base URL"),
    "no Azure key": ({"OPENAI_BASE_URL": "http://127.0.0.1:9/openai"}, "AZURE_OPENAI_API_KEY", "has to send one"),
}


@pytest.mark.parametrize("illness", SICK)
def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(illness, sandbox, monkeypatch):
    """And no key, right or wrong."""
    environment, says, mend = SICK[illness]
    sandbox.configure(api_keys=["sk-good"])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = run("doctor")
    assert ran.exit_code == 1
    assert says in ran.stdout
    assert mend in ran.stdout.partition("→")[2]
    assert "sk-wrong-one" not in ran.output
    assert "sk-good" not in ran.output


def test_the_doctor_tells_that_a_version_is_missing(sandbox):
    """By what the server answers: an address may do without."""
    address = sandbox.base_url.removesuffix("/v1")
    ran = run("doctor", "--base-url", address)
    assert ran.exit_code == 1
    assert f"{address} has neither batches nor files: it answers 404." in ran.stdout
    assert f"→ The base URL lacks its version: set it to {sandbox.base_url}\n" in ran.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_who_wants_no_colours_gets_none(directory):
    """In a terminal too, of tables, errors and findings."""
    for arguments in (["jobs"], ["jobs", "nobody"], ["doctor", "--base-url", "nowhere"]):
        ours, theirs = os.openpty()
        environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm"}
        ran = subprocess.Popen([COMMAND, *arguments], stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        told = b""
        with suppress(OSError):
            while some := os.read(ours, 4_096):
                told += some
        os.close(ours)
        ran.wait()
        assert told
        assert not re.search(rb"\x1b\[(3[0-9]|9[0-9])m", told)


def test_the_doctor_tells_of_extras(sandbox, monkeypatch):
    """All that the project has; how to install those that are missing, which is no illness."""
    extras = re.findall(r"^(\w+) = ", (ROOT / "pyproject.toml").read_text().split("optional-dependencies]\n")[1], re.M)
    assert set(doctor.EXTRAS) == set(extras[:4])
    monkeypatch.setattr(doctor, "is_installed", lambda package: package not in ("genai-prices", "ray"))
    ran = run("doctor")
    assert ran.exit_code == 0
    assert "✓ extras: report, sandbox; not installed:\n" in ran.stdout
    for extra in ("prices", "ray"):
        assert re.search(rf"    {extra}, for .*: pip install 'distilabel-openai-batch\[{extra}\]'\n", ran.stdout)


def test_the_doctor_looks_at_the_ledger(sandbox, tmp_path):
    """One that is none is to be moved away."""
    (tmp_path / "ledger.sqlite3").write_bytes(b"not a database" * 100)
    ran = run("doctor", "--ledger-dir", tmp_path)
    assert ran.exit_code == 1
    assert "is damaged, or is no ledger" in ran.stdout


def test_serve_answers_until_it_is_stopped():
    """It says where it listens, and what to set."""
    with subprocess.Popen([COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            told = ""
            while not (address := re.search(r"http://127\.0\.0\.1:\d+/v1", told)):
                line = server.stdout.readline()
                assert line, told
                told += line
            answer = httpx.get(f"{address[0]}/batches", headers={"Authorization": "Bearer any"})
            assert answer.json()["data"] == []
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)


def test_serve_fails_and_dawdles_as_it_is_told(monkeypatch):
    """What a user wants to see before it costs money."""
    told = {}
    monkeypatch.setattr(sandbox_package, "serve", lambda settings, **_: told.update(settings.model_dump()))
    options = ["--in-progress-seconds", 3, "--window-seconds", 2, "--fail-share", 0.25, "--fail-status", 429]
    assert run("serve", *options).exit_code == 0
    assert (told["in_progress_seconds"], told["window_seconds"]) == (3.0, 2.0)
    [failure] = told["failures"]
    assert (failure["share"], failure["status"]) == (0.25, 429)
    assert run("serve").exit_code == 0
    assert Settings(**told) == Settings()
    assert run("serve", "--fail-share", 2).exit_code == 2


def test_serve_without_its_packages_says_what_to_install(monkeypatch):
    """Not a traceback."""
    monkeypatch.setitem(sys.modules, "distilabel_openai_batch.sandbox", None)
    ran = CliRunner().invoke(app, ["serve"])
    assert ran.exit_code == 1
    assert "pip install 'distilabel-openai-batch[sandbox]'" in ran.output
