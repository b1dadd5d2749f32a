"""Tests of interrupted runs: the next run has the whole dataset, and each request is submitted once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distilabel_openai_batch.failpoints import Failpoint
from distilabel_openai_batch.sandbox import Fault
from tests.support.environment import ROOT

PROGRAMS = ROOT / "tests" / "support" / "programs"
SHAPES = {"leaf": 12, "chain": 24, "flow": 24, "before_step": 12, "siblings": 36, "after_step": 48}
"""Number of requests of each pipeline in `two_tasks.py`."""


class Forker:
    """A process that forks the processes of scripts, see `forker.py`."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", ROOT / "tests" / "support" / "forker.py"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, **command) -> dict:
        """Send a command, and return the answer."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Forker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()


class ScriptProcess:
    """The process of a script, which leads a process group.

    Args:
        forker: the parent process.
        command: the program and its arguments.
        environment: the environment variables.
        output: the file for standard output and standard error.
    """

    def __init__(self, forker: Forker, command: list[str], environment: dict[str, str], output: Path) -> None:
        self._forker = forker
        self._output = output
        output.unlink(missing_ok=True)
        self.pid = forker.send(run=command, environment=environment, output=str(output))["pid"]

    def log(self) -> str:
        """Return the output so far."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def wait_for(self, text: str) -> None:
        """Wait until the output contains a text."""
        self._until(lambda: text in self.log(), 60.0)

    def wait_for_words(self, text: str) -> None:
        """Wait until the output contains a text, whose words may stand on several lines of a narrow table."""
        pattern = re.compile(r"\s+(?:\S*\.py:\d+\s+|\d+'\]\s+)?".join(map(re.escape, text.split())))
        self._until(lambda: bool(pattern.search(self.log())), 60.0)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until the process ends, and return its exit code: negative if a signal ended the process."""
        codes: list[int] = []

        def ended() -> bool:
            code = self._forker.send(poll=self.pid)["code"]
            codes.extend([] if code is None else [code])
            return bool(codes)

        self._until(ended, timeout)
        return codes[0]

    def _until(self, holds: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                pytest.fail(f"The process hangs:\n{self.log()}")
            time.sleep(0.02)


class Script:
    """A script that runs several times, with a ledger and a cache of its own.

    Args:
        forker: the process that starts the script.
        folder: the folder of the ledger, the cache, and the dataset.
        shape: the shape of the pipeline, a key of `SHAPES`.
        options: command-line options of each run.
    """

    def __init__(self, forker: Forker, folder: Path, shape: str = "chain", *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.output = folder / "dataset.json"
        self.ledger = folder / "ledger"
        self._forker = forker
        self._options = ["--shape", shape, *options]

    def start(self, *options: str) -> ScriptProcess:
        """Start the script in a process group of its own."""
        program = [str(PROGRAMS / "two_tasks.py"), str(self.output), str(self.folder / "cache")]
        environment = os.environ | {"DISTILABEL_OPENAI_BATCH_DIR": str(self.ledger)}
        command = [*program, *self._options, *options]
        return ScriptProcess(self._forker, command, environment, self.folder / "log")

    def run(self, *options: str) -> tuple[int, str]:
        """Run the script to its end, and return its exit code and output."""
        process = self.start(*options)
        return process.wait(), process.log()

    def dataset(self) -> dict[str, list[dict]]:
        """Return the dataset that the script wrote."""
        return json.loads(self.output.read_text(encoding="utf-8"))


def assert_submitted_once(sandbox, requests: int):
    billed = sandbox.books().billed
    assert len(billed) == requests
    assert set(billed.values()) == {1}
    assert all(len(batch["custom_ids"]) for batch in sandbox.books().batches)


@pytest.fixture(scope="module")
def forker():
    with Forker() as forker:
        yield forker


@pytest.fixture(scope="module")
def uninterrupted(forker, tmp_path_factory):
    """Return a function that returns the dataset of an uninterrupted run, by shape."""
    datasets: dict[str, dict[str, list[dict]]] = {}

    def dataset(sandbox, shape: str) -> dict[str, list[dict]]:
        if shape not in datasets:
            script = Script(forker, tmp_path_factory.mktemp("uninterrupted"), shape)
            code, log = script.run()
            assert code == 0, log
            datasets[shape] = script.dataset()
            sandbox.reset()
        return datasets[shape]

    return dataset


def processes_of(group: int) -> list[int]:
    """Return the ids of the running processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def assert_no_process_left(group: int):
    deadline = time.monotonic() + 10
    while processes_of(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(group)


FAILPOINTS = [failpoint for failpoint in Failpoint if failpoint is not Failpoint.ANSWER_TO_RECORD]
"""Failpoints of a batch job."""


@pytest.mark.parametrize("failpoint", FAILPOINTS, ids=lambda failpoint: failpoint.value)
def test_dataset_is_complete_after_a_kill_at_a_failpoint(forker, uninterrupted, sandbox, tmp_path, failpoint):
    """`kill -9` ends the whole process group in the first Task, then in the second. distilabel's cache is on or off."""
    dataset = uninterrupted(sandbox, "chain")
    script = Script(forker, tmp_path)
    cache = ["--no-cache"] if FAILPOINTS.index(failpoint) % 2 else []

    for task in ("generate", "judge"):
        code, log = script.run("--kill", f"{failpoint.name}:{task}", *cache)
        assert code == -signal.SIGKILL, log
        assert not script.output.exists()
    code, log = script.run(*cache)
    assert code == 0, log

    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["chain"])


def test_answers_of_the_flex_lane_survive_a_kill(forker, sandbox, tmp_path):
    """A request in flight is sent again: the ledger cannot know its answer."""
    script = Script(forker, tmp_path, "leaf")
    code, log = script.run("--kill", f"{Failpoint.ANSWER_TO_RECORD.name}:generate", "--flex")
    assert code == -signal.SIGKILL, log
    code, log = script.run("--flex")
    assert code == 0, log
    assert_all_rows(script)
    books = sandbox.books()
    assert not books.batches
    assert len(books.sync_bodies) == 12
    assert max(books.sync_bodies.values()) <= 2
    assert books.sync_tiers.keys() == {"flex"}


def assert_all_rows(script: Script):
    [rows] = script.dataset().values()
    assert [row["instruction"] for row in rows] == [f"Say number {i}." for i in range(12)]
    assert all(row["generation"] for row in rows)


@pytest.mark.parametrize("cache", [(), ("--no-cache",)])
@pytest.mark.parametrize(
    "failpoint",
    [
        Failpoint.UPLOAD_TO_RECORD,
        Failpoint.CREATE_TO_RECORD,
        Failpoint.DOWNLOAD_TO_RECORD,
        Failpoint.RECORD_TO_DELIVERY,
    ],
    ids=lambda failpoint: failpoint.value,
)
def test_stream_is_complete_after_a_kill(forker, sandbox, tmp_path, failpoint, cache):
    """Each row comes once, and no request is submitted twice."""
    script = Script(forker, tmp_path, "stream")
    code, log = script.run("--kill", f"{failpoint.name}:stream", *cache)
    assert code == -signal.SIGKILL, log
    code, log = script.run(*cache)
    assert code == 0, log
    assert_all_rows(script)
    assert_submitted_once(sandbox, 12)


@pytest.mark.parametrize(
    ("in_submit", "in_load"),
    [
        (Failpoint.INTENT_TO_UPLOAD, Failpoint.POLLING),
        (Failpoint.UPLOAD_TO_CREATE, Failpoint.DOWNLOADING),
        (Failpoint.CREATE_TO_RECORD, Failpoint.RECORD_TO_DELIVERY),
    ],
    ids=lambda failpoint: failpoint.value,
)
def test_submission_and_loading_are_complete_after_a_kill(forker, sandbox, tmp_path, in_submit, in_load):
    """Each step is killed once and started again."""
    for shape, failpoint in (("submit", in_submit), ("load", in_load)):
        # No job ends while requests are submitted, nor while jobs are polled.
        sandbox.configure(in_progress_seconds=600.0 if shape == "submit" or failpoint is Failpoint.POLLING else 0.0)
        script = Script(forker, tmp_path, shape)
        code, log = script.run("--kill", f"{failpoint.name}:{shape}")
        assert code == -signal.SIGKILL, log
        sandbox.configure(in_progress_seconds=600.0 if shape == "submit" else 0.0)
        code, log = script.run()
        assert code == 0, log
    assert_all_rows(script)
    assert_submitted_once(sandbox, 12)


@pytest.mark.parametrize("shape", ["chain", "after_step"])
def test_dataset_is_complete_after_kills_at_random_times(forker, uninterrupted, sandbox, tmp_path, shape):
    """Several runs are killed after random times, and one is left to end."""
    dataset = uninterrupted(sandbox, shape)
    sandbox.configure(in_progress_seconds=0.5)
    chance = random.Random(shape)

    script = Script(forker, tmp_path, shape)
    for _ in range(4):
        process = script.start()
        process.wait_for("begins\n")
        time.sleep(chance.uniform(0.2, 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        script.output.unlink(missing_ok=True)
    code, log = script.run()
    assert code == 0, log

    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES[shape])


@pytest.mark.parametrize("cache", [(), ("--no-cache",)], ids=["cache", "no cache"])
def test_dataset_is_complete_after_a_kill_while_rows_are_at_the_next_steps(
    forker, uninterrupted, sandbox, tmp_path, cache
):
    """The rows of the first job have passed the next step, and the last job is in progress."""
    dataset = uninterrupted(sandbox, "flow")
    sandbox.configure(in_progress_seconds=1.0)
    script = Script(forker, tmp_path, "flow", *cache)

    for batch in ("Step 'pass' sending batch 0", "Step 'judge' sending batch 0"):
        process = script.start()
        process.wait_for_words(batch)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not script.output.exists()
    code, log = script.run()
    assert code == 0, log

    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["flow"])


def wait_for_jobs(sandbox, jobs: int, pause: float = 0.3):
    """Wait until the server has a number of batches, and then until the ledger has probably recorded them."""
    deadline = time.monotonic() + 60
    while len(sandbox.books().batches) < jobs:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(pause)


INTERRUPTIONS = {
    "a leaf": ("leaf", 1, True, signal.SIGINT),
    "a leaf, the main process alone": ("leaf", 1, False, signal.SIGINT),
    "before another step": ("before_step", 1, True, signal.SIGINT),
    "siblings": ("siblings", 3, True, signal.SIGINT),
    "after an ordinary step": ("after_step", 4, True, signal.SIGINT),
    "after an ordinary step, the main process alone": ("after_step", 4, False, signal.SIGINT),
    "terminated": ("chain", 2, False, signal.SIGTERM),
    "terminated, the whole group": ("leaf", 1, True, signal.SIGTERM),
}


@pytest.mark.parametrize("case", INTERRUPTIONS)
def test_interrupted_pipeline_stops_soon_and_continues_later(forker, uninterrupted, sandbox, tmp_path, case):
    """The log names the next step to take, the script does not go on, and no process is left."""
    shape, jobs, whole_group, number = INTERRUPTIONS[case]
    dataset = uninterrupted(sandbox, shape)
    script = Script(forker, tmp_path, shape)
    # The server answers all Tasks at once, except the last one.
    slow = {"after_step": 3, "chain": 1}.get(shape, 0)
    sandbox.configure(in_progress_seconds=0.0 if slow else 600.0)

    process = script.start()
    if slow:
        # The next job may be created soon → no pause.
        wait_for_jobs(sandbox, slow, pause=0.0)
        sandbox.configure(in_progress_seconds=600.0)
    wait_for_jobs(sandbox, jobs)
    interrupted_at = time.monotonic()
    if whole_group:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    code = process.wait()
    log = process.log()
    # A stop takes three seconds at most. A busy machine, and the end of the interpreter, take longer.
    assert time.monotonic() - interrupted_at < 10, log
    assert "Run the pipeline again to continue" in " ".join(log.split())
    assert code == (-signal.SIGINT if number is signal.SIGINT else 143), log
    assert "Traceback" not in log
    assert not script.output.exists()
    assert_no_process_left(process.pid)

    sandbox.configure(in_progress_seconds=0.0)
    code, log = script.run()
    assert code == 0, log
    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES[shape])


def test_repeated_interrupts_end_the_pipeline(forker, sandbox, tmp_path):
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(forker, tmp_path, "after_step").start()
    wait_for_jobs(sandbox, 3)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    assert process.wait() in (130, -signal.SIGINT)
    assert_no_process_left(process.pid)


def test_child_processes_end_without_the_main_process(forker, sandbox, tmp_path):
    """After `kill -9` of the main process alone, its steps and queues end by themselves."""
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(forker, tmp_path, "siblings").start()
    wait_for_jobs(sandbox, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_no_process_left(process.pid)


def test_run_that_does_not_wait_gets_one_round_further(forker, uninterrupted, sandbox, tmp_path):
    """With `wait=False` a run submits, and a later run collects and submits the next round."""
    dataset = uninterrupted(sandbox, "chain")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(forker, tmp_path, "chain", "--no-wait")

    jobs = []
    for answered in (False, False, True, True):
        sandbox.configure(in_progress_seconds=0.0 if answered else 600.0)
        code, log = script.run()
        assert code == 0, log
        jobs.append(len(sandbox.books().batches))
    code, log = script.run()
    assert code == 0, log

    assert jobs == [1, 1, 2, 2]
    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["chain"])


def test_siblings_that_do_not_wait_submit_in_one_run(forker, uninterrupted, sandbox, tmp_path):
    """All siblings submit before the pipeline stops."""
    dataset = uninterrupted(sandbox, "siblings")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(forker, tmp_path, "siblings", "--no-wait")

    code, log = script.run()
    assert code == 0, log
    assert len(sandbox.books().batches) == 3
    sandbox.configure(in_progress_seconds=0.0)
    code, log = script.run()
    assert code == 0, log
    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["siblings"])


def test_another_machine_finds_the_jobs_on_the_server(forker, uninterrupted, sandbox, tmp_path):
    """Without the ledger and without distilabel's cache no request is submitted again."""
    dataset = uninterrupted(sandbox, "chain")
    sandbox.configure(in_progress_seconds=600.0)
    here = Script(forker, tmp_path / "here")
    process = here.start()
    wait_for_jobs(sandbox, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sandbox.configure(in_progress_seconds=0.0)

    with Forker() as another_forker:
        there = Script(another_forker, tmp_path / "there")
        code, log = there.run()
    assert code == 0, log
    assert there.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["chain"])


def test_two_processes_run_the_same_pipeline_at_once(forker, uninterrupted, sandbox, tmp_path):
    """A single process submits, and both get the dataset."""
    dataset = uninterrupted(sandbox, "chain")
    sandbox.configure(in_progress_seconds=1.0)
    scripts = [Script(forker, tmp_path / name) for name in ("one", "other")]
    processes = []
    for script in scripts:
        script.ledger = tmp_path / "ledger"
        processes.append(script.start())
    for process in processes:
        assert process.wait(90.0) == 0, process.log()

    assert [script.dataset() for script in scripts] == [dataset, dataset]
    assert_submitted_once(sandbox, SHAPES["chain"])


def test_run_continues_after_the_cause_of_an_error_is_fixed(forker, uninterrupted, sandbox, tmp_path):
    """The run continues in the middle of the pipeline."""
    dataset = uninterrupted(sandbox, "chain")
    script = Script(forker, tmp_path)
    refusal = {"error": {"message": "The key was withdrawn.", "code": "invalid_api_key"}}
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=401, body=refusal, skip=1, times=-1))

    code, log = script.run()
    assert code == 1
    assert "The key was withdrawn." in " ".join(log.split())
    assert log.rstrip().endswith("(DISTILABEL_OPENAI_BATCH_TRACEBACK=1 shows the traceback.)")
    assert "Traceback" not in log
    assert len(sandbox.books().batches) == 1
    sandbox.clear_faults()
    code, log = script.run()

    assert code == 0, log
    assert script.dataset() == dataset
    assert_submitted_once(sandbox, SHAPES["chain"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_script_without_a_pipeline_continues_after_a_signal(forker, sandbox, tmp_path, number):
    """Ctrl+C raises `KeyboardInterrupt`, and the next run finds the submitted job."""
    sandbox.configure(in_progress_seconds=600.0)
    command = [str(PROGRAMS / "script.py"), str(tmp_path / "answers.json")]

    process = ScriptProcess(forker, command, dict(os.environ), tmp_path / "log")
    wait_for_jobs(sandbox, 1)
    os.kill(process.pid, number)
    assert process.wait(10.0) != 0
    assert ("KeyboardInterrupt" in process.log()) == (number is signal.SIGINT)
    sandbox.configure(in_progress_seconds=0.0)
    process = ScriptProcess(forker, command, dict(os.environ), tmp_path / "log")
    assert process.wait() == 0, process.log()

    answers = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == 3
    assert all("number" in answer for [answer] in answers)
    assert_submitted_once(sandbox, 3)
