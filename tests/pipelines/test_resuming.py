"""Whatever dies, the next run of the same script ends with the whole dataset, and each request is bought once."""

from __future__ import annotations

import json
import os
import random
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
SHAPES = {"leaf": 12, "row": 24, "before": 12, "siblings": 36, "behind": 48}
"""The pipelines, and how many requests each makes."""


class Forker:
    """The process that forks scripts' processes off itself, see `forker.py`."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", ROOT / "tests" / "support" / "forker.py"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command) -> dict:
        """Has a command obeyed."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Forker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()


class Running:
    """A script's process, which leads a process group.

    Args:
        forker: its parent.
        command: the program and its arguments.
        environment: what it finds in `os.environ`.
        output: where it writes what it says.
    """

    def __init__(self, forker: Forker, command: list[str], environment: dict[str, str], output: Path) -> None:
        self._forker = forker
        self._output = output
        output.unlink(missing_ok=True)
        self.pid = forker.ask(run=command, environment=environment, output=str(output))["pid"]

    def told(self) -> str:
        """What it said so far."""
        return self._output.read_text(encoding="utf-8") if self._output.exists() else ""

    def wait_for(self, text: str) -> None:
        """Until it has said something."""
        self._until(lambda: text in self.told(), 60.0)

    def wait(self, timeout: float = 60.0) -> int:
        """Until it ends; returns its exit code, which is negative where a signal ended it."""
        codes: list[int] = []

        def ended() -> bool:
            code = self._forker.ask(poll=self.pid)["code"]
            codes.extend([] if code is None else [code])
            return bool(codes)

        self._until(ended, timeout)
        return codes[0]

    def _until(self, holds: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                pytest.fail(f"it hangs:\n{self.told()}")
            time.sleep(0.02)


class Script:
    """A script that is run again and again, on a machine of its own.

    Args:
        forker: starts it.
        folder: its machine's disk.
        shape: what its pipeline looks like.
        options: given to it each time.
    """

    def __init__(self, forker: Forker, folder: Path, shape: str = "row", *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.output = folder / "dataset.json"
        self.ledger = folder / "ledger"
        self._forker = forker
        self._options = ["--shape", shape, *options]

    def start(self, *options: str) -> Running:
        """Starts it in a process group of its own."""
        program = [str(PROGRAMS / "two_tasks.py"), str(self.output), str(self.folder / "cache")]
        environment = os.environ | {"DISTILABEL_OPENAI_BATCH_DIR": str(self.ledger)}
        command = [*program, *self._options, *options]
        return Running(self._forker, command, environment, self.folder / "told")

    def run(self, *options: str) -> tuple[int, str]:
        """Runs it to its end, and returns its exit code and what it said."""
        process = self.start(*options)
        return process.wait(), process.told()

    def dataset(self) -> dict[str, list[dict]]:
        """What it wrote."""
        return json.loads(self.output.read_text(encoding="utf-8"))


def assert_bought_once(sandbox, requests: int):
    billed = sandbox.books().billed
    assert len(billed) == requests
    assert set(billed.values()) == {1}
    assert all(len(batch["custom_ids"]) for batch in sandbox.books().batches)


@pytest.fixture(scope="module")
def forker():
    with Forker() as forker:
        yield forker


@pytest.fixture(scope="module")
def undisturbed(forker, tmp_path_factory):
    """What each script writes when nothing dies, by its shape."""
    known: dict[str, dict[str, list[dict]]] = {}

    def dataset(sandbox, shape: str) -> dict[str, list[dict]]:
        if shape not in known:
            script = Script(forker, tmp_path_factory.mktemp("undisturbed"), shape)
            code, told = script.run()
            assert code == 0, told
            known[shape] = script.dataset()
            sandbox.reset()
        return known[shape]

    return dataset


def processes_of(group: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def assert_nobody_stays(group: int):
    deadline = time.monotonic() + 10
    while processes_of(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_of(group)


FAILPOINTS = [failpoint for failpoint in Failpoint if failpoint is not Failpoint.ANSWER_TO_RECORD]
"""Those of a batch."""


@pytest.mark.parametrize("failpoint", FAILPOINTS, ids=lambda failpoint: failpoint.value)
def test_killed_at_a_boundary(forker, undisturbed, sandbox, tmp_path, failpoint):
    """The whole process group, in the first Task and then in the second one, with distilabel's cache on and off."""
    dataset = undisturbed(sandbox, "row")
    script = Script(forker, tmp_path)
    cache = ["--no-cache"] if FAILPOINTS.index(failpoint) % 2 else []

    for task in ("generate", "judge"):
        code, told = script.run("--kill", f"{failpoint.name}:{task}", *cache)
        assert code == -signal.SIGKILL, told
        assert not script.output.exists()
    code, told = script.run(*cache)
    assert code == 0, told

    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


def test_killed_while_asking_synchronously(forker, sandbox, tmp_path):
    """What stands in the ledger is kept. What was on its way is asked again, which no ledger can help."""
    script = Script(forker, tmp_path, "leaf")
    code, told = script.run("--kill", f"{Failpoint.ANSWER_TO_RECORD.name}:generate", "--synchronous")
    assert code == -signal.SIGKILL, told
    code, told = script.run("--synchronous")
    assert code == 0, told
    assert_all_rows(script)
    books = sandbox.books()
    assert not books.batches
    assert len(books.sync_bodies) == 12
    assert max(books.sync_bodies.values()) <= 2


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
def test_a_stream_is_killed(forker, sandbox, tmp_path, failpoint, cache):
    """Its rows are all there in the next run, each once, and none is bought twice."""
    script = Script(forker, tmp_path, "stream")
    code, told = script.run("--kill", f"{failpoint.name}:stream", *cache)
    assert code == -signal.SIGKILL, told
    code, told = script.run(*cache)
    assert code == 0, told
    assert_all_rows(script)
    assert_bought_once(sandbox, 12)


@pytest.mark.parametrize(
    ("in_submit", "in_load"),
    [
        (Failpoint.INTENT_TO_UPLOAD, Failpoint.POLLING),
        (Failpoint.UPLOAD_TO_CREATE, Failpoint.DOWNLOADING),
        (Failpoint.CREATE_TO_RECORD, Failpoint.RECORD_TO_DELIVERY),
    ],
    ids=lambda failpoint: failpoint.value,
)
def test_submitting_and_loading_are_killed(forker, sandbox, tmp_path, in_submit, in_load):
    """Each in its middle, and started again."""
    for shape, failpoint in (("submit", in_submit), ("load", in_load)):
        # Nothing has ended while it is submitted, nor while it is watched.
        sandbox.configure(in_progress_seconds=600.0 if shape == "submit" or failpoint is Failpoint.POLLING else 0.0)
        script = Script(forker, tmp_path, shape)
        code, told = script.run("--kill", f"{failpoint.name}:{shape}")
        assert code == -signal.SIGKILL, told
        sandbox.configure(in_progress_seconds=600.0 if shape == "submit" else 0.0)
        code, told = script.run()
        assert code == 0, told
    assert_all_rows(script)
    assert_bought_once(sandbox, 12)


@pytest.mark.parametrize("shape", ["row", "behind"])
def test_killed_at_random_times(forker, undisturbed, sandbox, tmp_path, shape):
    """Many times in a row, a little later each time or earlier, until it comes through."""
    dataset = undisturbed(sandbox, shape)
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
    code, told = script.run()
    assert code == 0, told

    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES[shape])


def wait_for_jobs(sandbox, jobs: int):
    deadline = time.monotonic() + 60
    while len(sandbox.books().batches) < jobs:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)


INTERRUPTIONS = {
    "a leaf": ("leaf", 1, True, signal.SIGINT),
    "a leaf, the main process alone": ("leaf", 1, False, signal.SIGINT),
    "before another step": ("before", 1, True, signal.SIGINT),
    "siblings": ("siblings", 3, True, signal.SIGINT),
    "behind an ordinary step": ("behind", 4, True, signal.SIGINT),
    "behind an ordinary step, the main process alone": ("behind", 4, False, signal.SIGINT),
    "terminated": ("row", 2, False, signal.SIGTERM),
}


@pytest.mark.parametrize("case", INTERRUPTIONS)
def test_an_interrupted_pipeline_ends_soon_and_is_carried_on(forker, undisturbed, sandbox, tmp_path, case):
    """With distilabel's own message, and nobody left behind."""
    shape, jobs, whole_group, number = INTERRUPTIONS[case]
    dataset = undisturbed(sandbox, shape)
    script = Script(forker, tmp_path, shape)
    # All but the last of the Tasks are answered at once, that one takes its time.
    slow = {"behind": 3, "row": 1}.get(shape, 0)
    sandbox.configure(in_progress_seconds=0.0 if slow else 600.0)

    process = script.start()
    if slow:
        wait_for_jobs(sandbox, slow)
        sandbox.configure(in_progress_seconds=600.0)
    wait_for_jobs(sandbox, jobs)
    interrupted_at = time.monotonic()
    if whole_group:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    process.wait()
    told = process.told()
    # Three seconds are promised; the machine may be busy, and the interpreter has to end too.
    assert time.monotonic() - interrupted_at < 10, told
    assert "Run the pipeline again to continue" in " ".join(told.split())
    assert_nobody_stays(process.pid)

    sandbox.configure(in_progress_seconds=0.0)
    script.output.unlink(missing_ok=True)
    code, told = script.run()
    assert code == 0, told
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES[shape])


def test_interrupting_again_and_again_ends_it(forker, sandbox, tmp_path):
    """However often, and however soon."""
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(forker, tmp_path, "behind").start()
    wait_for_jobs(sandbox, 3)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    process.wait()
    assert_nobody_stays(process.pid)


def test_orphans_end(forker, sandbox, tmp_path):
    """After a `kill -9` of the main process alone, its steps and its queues end by themselves."""
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(forker, tmp_path, "siblings").start()
    wait_for_jobs(sandbox, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_nobody_stays(process.pid)


def test_a_run_that_does_not_wait_gets_one_round_further(forker, undisturbed, sandbox, tmp_path):
    """`wait=False`: submitted, and collected by a later run, which submits what comes next."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(forker, tmp_path, "row", "--no-wait")

    jobs = []
    for answered in (False, False, True, True):
        sandbox.configure(in_progress_seconds=0.0 if answered else 600.0)
        code, told = script.run()
        assert code == 0, told
        jobs.append(len(sandbox.books().batches))
    code, told = script.run()
    assert code == 0, told

    assert jobs == [1, 1, 2, 2]
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


def test_siblings_that_do_not_wait_submit_in_one_run(forker, undisturbed, sandbox, tmp_path):
    """All of them, before the pipeline stops."""
    dataset = undisturbed(sandbox, "siblings")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(forker, tmp_path, "siblings", "--no-wait")

    code, told = script.run()
    assert code == 0, told
    assert len(sandbox.books().batches) == 3
    sandbox.configure(in_progress_seconds=0.0)
    code, told = script.run()
    assert code == 0, told
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["siblings"])


def test_a_fresh_machine_finds_the_jobs_on_the_server(forker, undisturbed, sandbox, tmp_path):
    """Without the ledger and without distilabel's cache, nothing is bought again."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=600.0)
    here = Script(forker, tmp_path / "here")
    process = here.start()
    wait_for_jobs(sandbox, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sandbox.configure(in_progress_seconds=0.0)

    with Forker() as another_forker:
        there = Script(another_forker, tmp_path / "there")
        code, told = there.run()
    assert code == 0, told
    assert there.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


def test_two_processes_run_the_same_pipeline_at_once(forker, undisturbed, sandbox, tmp_path):
    """One buys, both have the dataset."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=1.0)
    scripts = [Script(forker, tmp_path / name) for name in ("one", "other")]
    processes = []
    for script in scripts:
        script.ledger = tmp_path / "ledger"
        processes.append(script.start())
    for process in processes:
        assert process.wait(90.0) == 0, process.told()

    assert [script.dataset() for script in scripts] == [dataset, dataset]
    assert_bought_once(sandbox, SHAPES["row"])


def test_after_an_error_of_the_run_the_mended_one_carries_on(forker, undisturbed, sandbox, tmp_path):
    """From where it stopped, in the middle of the pipeline."""
    dataset = undisturbed(sandbox, "row")
    script = Script(forker, tmp_path)
    refusal = {"error": {"message": "The key was withdrawn.", "code": "invalid_api_key"}}
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=401, body=refusal, skip=1, times=-1))

    code, told = script.run()
    assert code == 1
    assert "The key was withdrawn." in " ".join(told.split())
    assert len(sandbox.books().batches) == 1
    sandbox.clear_faults()
    code, told = script.run()

    assert code == 0, told
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_script_without_a_pipeline_is_carried_on(forker, sandbox, tmp_path, number):
    """Ctrl+C is its `KeyboardInterrupt`, and what it had bought is there when it is run again."""
    sandbox.configure(in_progress_seconds=600.0)
    command = [str(PROGRAMS / "script.py"), str(tmp_path / "answers.json")]

    process = Running(forker, command, dict(os.environ), tmp_path / "told")
    wait_for_jobs(sandbox, 1)
    os.kill(process.pid, number)
    assert process.wait(10.0) != 0
    assert ("KeyboardInterrupt" in process.told()) == (number is signal.SIGINT)
    sandbox.configure(in_progress_seconds=0.0)
    process = Running(forker, command, dict(os.environ), tmp_path / "told")
    assert process.wait() == 0, process.told()

    answers = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == 3
    assert all("number" in answer for [answer] in answers)
    assert_bought_once(sandbox, 3)
