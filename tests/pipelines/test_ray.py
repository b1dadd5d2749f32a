"""Tests of pipelines on a Ray cluster of this machine; a second ledger stands for another machine."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.ledger.owners import lock_path
from distilabel_openai_batch.sandbox import Fault
from tests.support.environment import ROOT

ray = pytest.importorskip("ray", reason="these tests need the extra `ray`: make test-ray")

PROGRAM = ROOT / "tests" / "support" / "programs" / "two_tasks.py"
ROWS = [{"instruction": f"Say number {i}."} for i in range(12)]
REQUESTS = 24


@pytest.fixture(scope="session")
def cluster():
    """Start Ray with two cores, and return the address."""
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def sandbox(sandbox, cluster):
    """Return the sandbox, with Ray running."""
    return sandbox


def two_tasks(machine: Path, **fields) -> Pipeline:
    """Return a pipeline whose ledger and cache are in a folder of one machine."""

    def llm() -> OpenAIBatchLLM:
        return OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1, ledger_dir=str(machine / "ledger"), **fields)

    with Pipeline(name="on-ray", cache_dir=machine / "cache") as pipeline:
        load = LoadDataFromDicts(data=ROWS, batch_size=5)
        generate = TextGeneration(name="generate", llm=llm(), num_generations=2, group_generations=True)
        judge = UltraFeedback(name="judge", llm=llm(), input_mappings={"generations": "generation"})
        load >> generate >> judge
    return pipeline


def run(pipeline) -> list[dict]:
    return pipeline.run()["default"]["train"].to_list()


def assert_submitted_once(sandbox):
    billed = sandbox.books().billed
    assert len(billed) == REQUESTS
    assert set(billed.values()) == {1}


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_with_open_file(path: Path) -> set[int]:
    """Return the ids of the processes that have a file open."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if file.readlink() == path:
                found.add(int(file.parts[2]))
    return found


def test_rows_and_jobs_equal_those_of_a_local_pipeline(sandbox, tmp_path):
    """A local run with another ledger finds both jobs of the cluster."""
    rows = run(two_tasks(tmp_path / "cluster").ray())
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in ROWS]
    assert run(two_tasks(tmp_path / "local")) == rows
    assert len(sandbox.books().batches) == 2
    assert_submitted_once(sandbox)
    # A worker of another machine cannot read the driver's disk: no rows are passed in files.
    assert not list((tmp_path / "cluster").rglob("batch_input_data/*"))


def test_first_example_of_the_ray_page_runs(sandbox, tmp_path):
    """The second example would have each worker install the package."""
    page = Document.parse(str(ROOT / "docs" / "ray.md"), CodeBlockParser("python", lambda block: None))
    namespace = {"pipeline": two_tasks(tmp_path)}
    exec(next(iter(page.examples())).parsed, namespace)
    assert len(namespace["distiset"]["default"]["train"]) == len(ROWS)


def test_ray_is_not_imported_by_the_package():
    program = "import sys, distilabel_openai_batch.plugin.llm; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_dead_worker_ends_the_run_and_another_machine_continues(sandbox, tmp_path):
    """The error names the step. A worker without the ledger finds the submitted job."""
    sandbox.configure(in_progress_seconds=600.0)
    ledger = tmp_path / "one" / "ledger" / "ledger.sqlite3"

    def kill() -> None:
        wait_until(lambda: sandbox.books().batches)
        with closing(sqlite3.connect(ledger)) as database:
            [(owner,)] = database.execute("SELECT owner FROM jobs")
        [worker] = processes_with_open_file(lock_path(ledger.parent, owner))
        os.kill(worker, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(RunError, match="worker of step 'generate' died") as raised:
        two_tasks(tmp_path / "one").ray().run()
    killing.join()
    assert "Run the same pipeline again" in str(raised.value)

    sandbox.configure(in_progress_seconds=0.0)
    assert len(run(two_tasks(tmp_path / "another").ray())) == len(ROWS)
    assert len(sandbox.books().batches) == 2
    assert_submitted_once(sandbox)


def test_error_of_the_run_is_raised(sandbox, tmp_path):
    """The next run continues once the cause is fixed, as for a local pipeline."""
    refusal = {"error": {"message": "The key was withdrawn.", "code": "invalid_api_key"}}
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=401, body=refusal, skip=1, times=-1))
    pipeline = two_tasks(tmp_path).ray()
    with pytest.raises(AuthenticationError, match="The key was withdrawn"):
        pipeline.run()

    sandbox.clear_faults()
    assert len(run(pipeline)) == len(ROWS)
    assert_submitted_once(sandbox)


def test_error_of_a_step_that_cannot_be_loaded_is_raised(sandbox, tmp_path, monkeypatch):
    """The cause is the error of the step's worker."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RuntimeError, match="Failed to load all the steps") as raised:
        two_tasks(tmp_path).ray().run()
    assert "api_key" in str(raised.value.__cause__)


def test_run_that_does_not_wait_gets_one_round_further(sandbox, tmp_path):
    """With `wait=False` a run submits, and a later run collects."""
    sandbox.configure(in_progress_seconds=600.0)
    assert not two_tasks(tmp_path, wait=False).ray().run()
    assert len(sandbox.books().batches) == 1
    sandbox.configure(in_progress_seconds=0.0)
    assert len(run(two_tasks(tmp_path).ray())) == len(ROWS)
    assert_submitted_once(sandbox)


def test_interrupted_pipeline_stops_soon_and_continues_later(sandbox, cluster, tmp_path):
    """After Ctrl+C in the driver the job continues at the server, and the next run collects."""
    sandbox.configure(in_progress_seconds=600.0)
    command = [sys.executable, PROGRAM, tmp_path / "dataset.json", tmp_path / "cache", "--ray", cluster]

    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_until(lambda: sandbox.books().batches)
        interrupted_at = time.monotonic()
        os.killpg(driver.pid, signal.SIGINT)
        log = driver.communicate()[0].decode()
    # A stop takes three seconds at most. A busy machine, and the end of the interpreter, take longer.
    assert time.monotonic() - interrupted_at < 10, log
    assert "Run the pipeline again to continue" in " ".join(log.split())
    # Python ends by SIGINT after a KeyboardInterrupt; in a driver of Ray the exit code is 1.
    assert driver.returncode in (1, -signal.SIGINT), log

    assert not (tmp_path / "dataset.json").exists()
    sandbox.configure(in_progress_seconds=0.0)
    subprocess.run(command, check=True)
    assert (tmp_path / "dataset.json").exists()
    assert_submitted_once(sandbox)
