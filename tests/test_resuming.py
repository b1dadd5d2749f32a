"""Whatever dies, the next run of the same script ends with the whole dataset, and each request is bought once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distilabel_openai_batch.boundaries import Boundary
from distilabel_openai_batch.sandbox import Fault

PROGRAM = Path(__file__).parent / "programs" / "two_tasks.py"
SHAPES = {"leaf": 12, "row": 24, "before": 12, "siblings": 36, "behind": 48}
"""The pipelines, and how many requests each makes."""


class Script:
    """A script that is run again and again, on a machine of its own.

    Args:
        folder: its machine's disk.
        shape: what its pipeline looks like.
    """

    def __init__(self, folder: Path, shape: str = "row", *options: str) -> None:
        self.output = folder / "dataset.json"
        self.cache = folder / "cache"
        self.ledger = folder / "ledger"
        self.shape = shape
        self.options = options

    def start(self, *options: str) -> subprocess.Popen:
        """Starts it in a process group of its own."""
        command = [sys.executable, "-W", "ignore", PROGRAM, self.output, self.cache, "--shape", self.shape]
        return subprocess.Popen(
            [*command, *self.options, *options],
            env=os.environ | {"DISTILABEL_OPENAI_BATCH_DIR": str(self.ledger)},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str, timeout: float = 60.0) -> tuple[int, str]:
        """Runs it to its end, and returns its exit code and what it said."""
        process = self.start(*options)
        try:
            told, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, _ = process.communicate()
            pytest.fail(f"it hangs:\n{told}")
        return process.returncode, told

    def dataset(self) -> dict[str, list[dict]]:
        """What it wrote."""
        return json.loads(self.output.read_text(encoding="utf-8"))


def assert_bought_once(sandbox, requests: int):
    billed = sandbox.books().billed
    assert len(billed) == requests
    assert set(billed.values()) == {1}
    assert all(len(batch["custom_ids"]) for batch in sandbox.books().batches)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What each script writes when nothing dies, by its shape."""
    known: dict[str, dict[str, list[dict]]] = {}

    def dataset(sandbox, shape: str) -> dict[str, list[dict]]:
        if shape not in known:
            script = Script(tmp_path_factory.mktemp("undisturbed"), shape)
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


BOUNDARIES = [boundary for boundary in Boundary if boundary is not Boundary.RECORDING]
"""All but the one that needs more results than one transaction takes: `test_jobs.py` has it."""


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=lambda boundary: boundary.value)
def test_killed_at_a_boundary(undisturbed, sandbox, tmp_path, boundary):
    """The whole process group, in the first Task and then in the second one, with distilabel's cache on and off."""
    dataset = undisturbed(sandbox, "row")
    script = Script(tmp_path)
    cache = ["--no-cache"] if BOUNDARIES.index(boundary) % 2 else []

    for task in ("generate", "judge"):
        code, told = script.run("--kill", f"{boundary.name}:{task}", *cache)
        assert code == -signal.SIGKILL, told
        assert not script.output.exists()
    code, told = script.run(*cache)
    assert code == 0, told

    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


@pytest.mark.parametrize("shape", ["row", "behind"])
def test_killed_at_random_times(undisturbed, sandbox, tmp_path, shape):
    """Many times in a row, a little later each time or earlier, until it comes through."""
    dataset = undisturbed(sandbox, shape)
    sandbox.configure(in_progress_seconds=0.5)
    chance = random.Random(shape)
    script = Script(tmp_path, shape)

    for _ in range(4):
        process = script.start()
        assert process.stdout.readline() == "begins\n"
        time.sleep(chance.uniform(0.2, 3.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
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
def test_an_interrupted_pipeline_ends_soon_and_is_carried_on(undisturbed, sandbox, tmp_path, case):
    """With distilabel's own message, and nobody left behind."""
    shape, jobs, whole_group, number = INTERRUPTIONS[case]
    dataset = undisturbed(sandbox, shape)
    script = Script(tmp_path, shape)
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
    told, _ = process.communicate(timeout=30)
    # Three seconds are promised; the machine may be busy, and the interpreter has to end too.
    assert time.monotonic() - interrupted_at < 10, told
    assert "Rerun pipeline with cache" in " ".join(told.split())
    assert_nobody_stays(process.pid)

    sandbox.configure(in_progress_seconds=0.0)
    script.output.unlink(missing_ok=True)
    code, told = script.run()
    assert code == 0, told
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES[shape])


def test_interrupting_again_and_again_ends_it(sandbox, tmp_path):
    """However often, and however soon."""
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(tmp_path, "behind").start()
    wait_for_jobs(sandbox, 3)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=30)
    assert_nobody_stays(process.pid)


def test_orphans_end(sandbox, tmp_path):
    """After a `kill -9` of the main process alone, its steps and its queues end by themselves."""
    sandbox.configure(in_progress_seconds=600.0)
    process = Script(tmp_path, "siblings").start()
    wait_for_jobs(sandbox, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_nobody_stays(process.pid)
    process.stdout.close()


def test_a_run_that_does_not_wait_gets_one_round_further(undisturbed, sandbox, tmp_path):
    """`wait=False`: submitted, and collected by a later run, which submits what comes next."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(tmp_path, "row", "--no-wait")

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


def test_siblings_that_do_not_wait_submit_in_one_run(undisturbed, sandbox, tmp_path):
    """All of them, before the pipeline stops."""
    dataset = undisturbed(sandbox, "siblings")
    sandbox.configure(in_progress_seconds=600.0)
    script = Script(tmp_path, "siblings", "--no-wait")

    code, told = script.run()
    assert code == 0, told
    assert len(sandbox.books().batches) == 3
    sandbox.configure(in_progress_seconds=0.0)
    code, told = script.run()
    assert code == 0, told
    assert script.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["siblings"])


def test_a_fresh_machine_finds_the_jobs_on_the_server(undisturbed, sandbox, tmp_path):
    """Without the ledger and without distilabel's cache, nothing is bought again."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=600.0)
    here = Script(tmp_path / "here")
    here.output.parent.mkdir()
    process = here.start()
    wait_for_jobs(sandbox, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    sandbox.configure(in_progress_seconds=0.0)

    there = Script(tmp_path / "there")
    there.output.parent.mkdir()
    code, told = there.run()
    assert code == 0, told
    assert there.dataset() == dataset
    assert_bought_once(sandbox, SHAPES["row"])


def test_two_processes_run_the_same_pipeline_at_once(undisturbed, sandbox, tmp_path):
    """One buys, both have the dataset."""
    dataset = undisturbed(sandbox, "row")
    sandbox.configure(in_progress_seconds=1.0)
    scripts = [Script(tmp_path / name) for name in ("one", "other")]
    processes = []
    for script in scripts:
        script.output.parent.mkdir()
        script.ledger = tmp_path / "ledger"
        processes.append(script.start())
    for process in processes:
        told, _ = process.communicate(timeout=90)
        assert process.returncode == 0, told

    assert [script.dataset() for script in scripts] == [dataset, dataset]
    assert_bought_once(sandbox, SHAPES["row"])


def test_after_an_error_of_the_run_the_mended_one_carries_on(undisturbed, sandbox, tmp_path):
    """From where it stopped, in the middle of the pipeline."""
    dataset = undisturbed(sandbox, "row")
    script = Script(tmp_path)
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
