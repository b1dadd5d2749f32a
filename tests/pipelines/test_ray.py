"""Pipelines on a Ray cluster: this machine, which counts as several where their ledgers are apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.sandbox import Fault
from tests.support.environment import ROOT

ray = pytest.importorskip("ray", reason="it needs the extra `ray`: make test-ray")

PROGRAM = ROOT / "tests" / "support" / "programs" / "two_tasks.py"
ROWS = [{"instruction": f"Say number {i}."} for i in range(12)]
REQUESTS = 24


@pytest.fixture(scope="session")
def cluster():
    """The address of a Ray with two cores."""
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture
def sandbox(sandbox, cluster):
    """The server, and a Ray beside it."""
    return sandbox


def two_tasks(machine: Path, **fields) -> Pipeline:
    """A pipeline whose ledger and cache are on a machine's own disk."""

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


def assert_bought_once(sandbox):
    billed = sandbox.books().billed
    assert len(billed) == REQUESTS
    assert set(billed.values()) == {1}


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def who_has_open(path: Path) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if file.readlink() == path:
                found.add(int(file.parts[2]))
    return found


def test_it_is_the_pipeline_that_it_is_elsewhere(sandbox, tmp_path):
    """Two jobs, all rows; and another machine, without Ray, knows both jobs for its own."""
    rows = run(two_tasks(tmp_path / "cluster").ray())
    assert [row["instruction"] for row in rows] == [row["instruction"] for row in ROWS]
    assert run(two_tasks(tmp_path / "local")) == rows
    assert len(sandbox.books().batches) == 2
    assert_bought_once(sandbox)
    # A worker elsewhere has not the driver's disk: its rows come another way.
    assert list((tmp_path / "local").rglob("batch_input_data/*"))
    assert not list((tmp_path / "cluster").rglob("batch_input_data/*"))


def test_the_page_about_ray_shows_how(sandbox, tmp_path):
    """Its first block runs, at this machine's Ray; the other one would have each worker install the package."""
    page = Document.parse(str(ROOT / "docs" / "ray.md"), CodeBlockParser("python", lambda block: None))
    namespace = {"pipeline": two_tasks(tmp_path)}
    exec(next(iter(page.examples())).parsed, namespace)
    assert len(namespace["distiset"]["default"]["train"]) == len(ROWS)


def test_ray_is_imported_by_none_who_does_not_use_it():
    """Also where it is installed."""
    program = "import sys, distilabel_openai_batch.plugin.llm; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_dead_worker_ends_the_run_and_another_machine_carries_on(sandbox, tmp_path):
    """The error names the step, and a worker without the ledger finds the job that was bought."""
    sandbox.configure(in_progress_seconds=600.0)
    ledger = tmp_path / "one" / "ledger" / "ledger.sqlite3"

    def kill() -> None:
        wait_until(lambda: sandbox.books().batches)
        [worker] = who_has_open(ledger)
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
    assert_bought_once(sandbox)


def test_an_error_of_the_run_is_raised(sandbox, tmp_path):
    """As it is by a local pipeline, and the mended one carries on."""
    refusal = {"error": {"message": "The key was withdrawn.", "code": "invalid_api_key"}}
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=401, body=refusal, skip=1, times=-1))
    pipeline = two_tasks(tmp_path).ray()
    with pytest.raises(AuthenticationError, match="The key was withdrawn"):
        pipeline.run()

    sandbox.clear_faults()
    assert len(run(pipeline)) == len(ROWS)
    assert_bought_once(sandbox)


def test_a_step_that_cannot_be_loaded_is_raised(sandbox, tmp_path, monkeypatch):
    """With what it said on its worker."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RuntimeError, match="Failed to load all the steps") as raised:
        two_tasks(tmp_path).ray().run()
    assert "api_key" in str(raised.value.__cause__)


def test_a_run_that_does_not_wait_gets_one_round_further(sandbox, tmp_path):
    """`wait=False`: submitted, and collected by a later run."""
    sandbox.configure(in_progress_seconds=600.0)
    assert not two_tasks(tmp_path, wait=False).ray().run()
    assert len(sandbox.books().batches) == 1
    sandbox.configure(in_progress_seconds=0.0)
    assert len(run(two_tasks(tmp_path).ray())) == len(ROWS)
    assert_bought_once(sandbox)


def test_an_interrupted_pipeline_ends_soon_and_is_carried_on(sandbox, cluster, tmp_path):
    """Ctrl+C in the driver: its job goes on at the server, and the next run collects."""
    sandbox.configure(in_progress_seconds=600.0)
    command = [sys.executable, PROGRAM, tmp_path / "dataset.json", tmp_path / "cache", "--ray", cluster]

    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_until(lambda: sandbox.books().batches)
        interrupted_at = time.monotonic()
        os.killpg(driver.pid, signal.SIGINT)
        told = driver.communicate()[0].decode()
    # Three seconds are promised; the machine may be busy, and the interpreter has to end too.
    assert time.monotonic() - interrupted_at < 10, told
    assert "Run the pipeline again to continue" in " ".join(told.split())

    sandbox.configure(in_progress_seconds=0.0)
    (tmp_path / "dataset.json").unlink(missing_ok=True)
    subprocess.run(command, check=True)
    assert (tmp_path / "dataset.json").exists()
    assert_bought_once(sandbox)
