"""Bounds on the work of a request, which do not depend on the machine, and the format of the benchmarks' results."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine.buffer import CallBuffer
from distilabel_openai_batch.ledger import connection
from tests.support.environment import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import FIGURES, main
from benchmarks.figures import polling, wall
from benchmarks.meter import size_of
from benchmarks.plans import PEERS, PLANS
from benchmarks.questions import questions
from benchmarks.runs import Run, Runs
from benchmarks.virtual_server import Scenario, VirtualServer

REQUESTS = 2_000

# Upper bounds for a run of 2,000 requests, without polls and their commits, whose number depends on the time of the
# run. Tighten a bound when the work has become less; raise a bound only with a reason.
HTTP_REQUESTS = 5
COMMITS = 10
STATEMENTS_A_REQUEST = 2.1
PEAK_BYTES_A_REQUEST = 5_000
ALLOCATIONS_KEPT_A_REQUEST = 15

RESUMED_HTTP_REQUESTS = 1
RESUMED_COMMITS = 4
RESUMED_STATEMENTS_A_REQUEST = 0.02


class LedgerWork:
    """Counter of the SQL statements of this process's ledgers.

    Attributes:
        statements: number of statements, once for each row of an `executemany`.
        commits: number of commits among the statements; a commit is at least one `fsync`.
    """

    def __init__(self, monkeypatch) -> None:
        self.statements = self.commits = 0
        open_database = connection.open_database

        def traced(path):
            database = open_database(path)
            database.set_trace_callback(self._count)
            return database

        monkeypatch.setattr(connection, "open_database", traced)

    def _count(self, statement: str) -> None:
        self.statements += 1
        self.commits += statement == "COMMIT"


@pytest.fixture
def work(monkeypatch):
    return LedgerWork(monkeypatch)


def generate() -> list:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1)
    llm.load()
    return llm.generate_outputs([[{"role": "user", "content": question}] for question in questions(REQUESTS)])


def clear_scope_memories() -> None:
    from distilabel_openai_batch.engine.calls import scope_memories

    scope_memories.clear()


def test_work_of_a_run_stays_within_bounds(sandbox, work):
    """HTTP requests and commits do not grow with the number of requests; statements per request have a bound."""
    generate()

    calls = Counter(call.name for call in sandbox.calls())
    assert (calls["files.create"], calls["batches.create"], calls["files.content"]) == (1, 1, 1)
    assert calls.total() - calls["batches.retrieve"] <= HTTP_REQUESTS
    assert work.commits - calls["batches.retrieve"] <= COMMITS
    assert work.statements / REQUESTS <= STATEMENTS_A_REQUEST


def test_run_with_all_answers_in_the_ledger_does_almost_no_work(sandbox, monkeypatch):
    """The run reads the ledger in large pieces, builds no request, and submits nothing."""
    generate()
    clear_scope_memories()
    before = len(sandbox.calls())
    work = LedgerWork(monkeypatch)
    monkeypatch.setattr(CallBuffer, "submit", Mock(side_effect=AssertionError("A request was built.")))

    generate()

    assert len(sandbox.calls()) - before <= RESUMED_HTTP_REQUESTS
    assert work.commits <= RESUMED_COMMITS
    assert work.statements / REQUESTS <= RESUMED_STATEMENTS_A_REQUEST


def test_memory_of_a_run_stays_within_bounds(sandbox):
    """Both the peak of Python's allocations, and the allocations that remain with the outputs, have a bound."""
    generate()
    clear_scope_memories()
    sandbox.reset()
    gc.collect()
    blocks = sys.getallocatedblocks()
    tracemalloc.start()
    try:
        outputs = generate()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    gc.collect()

    assert len(outputs) == REQUESTS
    assert peak / REQUESTS <= PEAK_BYTES_A_REQUEST
    assert (sys.getallocatedblocks() - blocks) / REQUESTS <= ALLOCATIONS_KEPT_A_REQUEST


class FakeSandbox:
    """Server that no process runs; only its address is read."""

    base_url = "http://127.0.0.1:1/v1"

    def __init__(self, settings=None) -> None:
        self.settings = settings

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass


def make_run(runs, contender, module, requests, folder, sandbox, options=None) -> Run:
    """Return a run with invented values that grow with the requests, instead of a measurement."""
    more = {"parts": {"the ledger": 0.1, "everything else": 0.2}, "peak": 1e6, "first": 0.1, "half": 0.2, "last": 0.3}
    calls = {"batches.create": 1, "files.create": 1}
    seconds = requests / 1_000
    return Run(contender, requests, None, seconds, seconds, seconds / 4, 1e6, 5e5, requests, 1, calls, more)


def test_benchmarks_write_their_results_as_markdown_and_json(monkeypatch, tmp_path):
    """Each figure has its table and its targets. `make bench-quick` fills the same tables with real runs."""
    monkeypatch.setattr(Runs, "_run_once", make_run)
    monkeypatch.setattr("benchmarks.runs.Sandbox", FakeSandbox)
    monkeypatch.setattr("benchmarks.runs.create_batches", lambda base_url, number: None)
    monkeypatch.setattr("benchmarks.report.draw", lambda plot, path: True)

    assert main(["--plan", "quick", "--output", str(tmp_path)]) == 0

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["schema"] == 1
    assert results["failed"] == {}
    assert list(results["figures"]) == list(FIGURES)
    assert results["machine"].keys() >= {"python", "cores", "packages", "peers"}
    for figure in results["figures"].values():
        assert figure["rows"]
        assert figure["targets"] or figure["title"] == "CPU time by stage"
        assert all(row.keys() == figure["rows"][0].keys() for row in figure["rows"])
        assert all(target["met"] in (True, False, None) for target in figure["targets"])
    assert {run["contender"] for run in results["runs"] if run["reason"] is None} >= {
        "ours",
        "again",
        "offline",
        "floor",
    }
    assert {run["contender"] for run in results["runs"] if run["reason"] is not None} == PEERS.keys()
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert all(f"## {figure['title']}" in text for figure in results["figures"].values())
    assert "](plots/wall.svg)" in text
    assert str(ROOT) not in text + (tmp_path / "results.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(("contender", "module"), [("ours", "parts"), ("offline", None), ("floor", None)])
def test_contender_answers_each_request(contender, module):
    """The process of a contender reports its time, its memory, and an answer for each request."""
    [run] = Runs(PLANS["quick"]).run(contender, 200, module=module)

    assert run.reason is None
    assert run.answers == 200
    assert run.jobs == (contender == "offline")
    assert 0 <= run.system <= run.cpu
    assert run.wall > 0


def test_unavailable_contender_does_not_stop_the_others(monkeypatch, tmp_path):
    """The contender's row gives the reason."""
    monkeypatch.setattr("benchmarks.runs.ENVIRONMENTS", tmp_path)
    runs = Runs(replace(PLANS["quick"], peers=True, seconds=60.0))

    seen = runs.measure(["inspect_ai", "offline"], 50_001)

    assert "not installed" in (seen["inspect_ai"].reason or "")
    assert "a job takes 50,000" in (seen["offline"].reason or "")


def test_questions_are_distinct_and_equally_long():
    """Two calls return the same questions, because each contender runs in its own process."""
    first = list(questions(1_000))

    assert len(set(first)) == 1_000
    assert {len(question) for question in first} == {500}
    assert first == list(questions(1_000))


def test_each_polling_rule_notices_the_end_of_a_job_within_its_longest_pause():
    for rule in polling.RULES:
        noticed = polling.simulate(rule, 600.0)
        assert 0 < noticed.worst <= 60.0
        assert noticed.polls >= 10
    ages = [age for age, _ in zip(polling.RULES[0].poll_ages(), range(100), strict=False)]
    assert all(earlier < later for earlier, later in pairwise(ages))


@pytest.mark.parametrize(("power", "constant"), [(1.0, 0.001), (2.0, 5.0), (0.5, 1.0)])
def test_exponent_of_a_fit_is_the_power_of_the_size(power, constant):
    """The constant factor has no influence."""
    points = [(size, constant * size**power) for size in (1_000, 50_000, 1_000_000)]

    assert wall.exponent(points) == pytest.approx(power)


def test_size_counts_a_shared_object_once():
    text = "x" * 1_000

    assert size_of([[text], [text]]) == (2 * sys.getsizeof([text]) + sys.getsizeof(text)) / 2


def test_virtual_server_enforces_the_token_limit():
    """A batch beyond the limit fails in validation, and the server counts the tokens enqueued per second."""
    now = 0.0
    scenario = Scenario(requests=300, stands_for=1, tokens=10, per_job=100, max_jobs=20, token_limit=1_500)
    server = VirtualServer(scenario, lambda: now)
    server._files["file"] = [str(number) for number in range(100)]

    for _ in range(2):
        server._create({"input_file_id": "file"})
    now = 31.0
    server.advance()

    assert [batch.status for batch in server._batches.values()] == ["in_progress", "failed"]
    assert (server.enqueued, server.rejected_batches) == (1_000, 1)
    assert server.token_seconds == pytest.approx(1_000 * 1.0)
