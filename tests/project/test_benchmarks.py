"""What a request costs in work, which no slow machine changes; and what the benchmarks write, never how fast it was."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.ledger import connection
from tests.support.environment import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks.__main__ import FIGURES
from benchmarks.figures import polling, wall
from benchmarks.meter import size_of
from benchmarks.plans import PEERS, PLANS
from benchmarks.questions import questions
from benchmarks.runs import Runs
from benchmarks.virtual_server import Scenario, VirtualServer

REQUESTS = 2_000

# What is done for a run of 2,000 requests, at most; looks at the job apart, which depend on the time that it takes.
# Tighten them when it has become less; raise them with a reason.
HTTP_REQUESTS = 5
COMMITS = 12
STATEMENTS_A_REQUEST = 3.2
PEAK_BYTES_A_REQUEST = 5_000
ALLOCATIONS_KEPT_A_REQUEST = 15

RESUMED_HTTP_REQUESTS = 1
RESUMED_COMMITS = 4
RESUMED_STATEMENTS_A_REQUEST = 0.02


class Work:
    """Counts what the ledgers of this process do.

    Attributes:
        statements: that SQLite ran, once for each row of an `executemany`.
        commits: the transactions among them; each is one `fsync` at least.
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
    return Work(monkeypatch)


def generate() -> list:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1)
    llm.load()
    return llm.generate_outputs([[{"role": "user", "content": question}] for question in questions(REQUESTS)])


def as_in_a_new_process() -> None:
    from distilabel_openai_batch.engine.calls import scope_memories

    scope_memories.clear()


def test_a_request_costs_so_much_work_and_no_more(sandbox, work):
    """HTTP requests, statements and commits do not grow with the requests, or stay within a bound for each of them."""
    generate()

    calls = Counter(call.name for call in sandbox.calls())
    assert (calls["files.create"], calls["batches.create"], calls["files.content"]) == (1, 1, 1)
    assert calls.total() - calls["batches.retrieve"] <= HTTP_REQUESTS
    assert work.commits <= COMMITS
    assert work.statements / REQUESTS <= STATEMENTS_A_REQUEST


def test_a_run_that_finds_everything_answered_asks_and_writes_next_to_nothing(sandbox, monkeypatch):
    """It reads the ledger in large pieces, and buys nothing."""
    generate()
    as_in_a_new_process()
    before = len(sandbox.calls())
    work = Work(monkeypatch)

    generate()

    assert len(sandbox.calls()) - before <= RESUMED_HTTP_REQUESTS
    assert work.commits <= RESUMED_COMMITS
    assert work.statements / REQUESTS <= RESUMED_STATEMENTS_A_REQUEST


def test_a_request_takes_so_much_memory_and_no_more(sandbox):
    """What Python allocates at the worst moment, and what is left when only the outputs are."""
    generate()
    as_in_a_new_process()
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


def test_the_benchmarks_write_a_table_and_all_that_it_says_as_json(tmp_path):
    """The shape of the results, from what `make bench-quick` runs: too little to say anything of the times."""
    command = [sys.executable, "-m", "benchmarks", "--plan", "quick", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)

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
    assert "the process ended with" not in text
    assert all(f"## {figure['title']}" in text for figure in results["figures"].values())
    assert str(ROOT) not in text + (tmp_path / "results.json").read_text(encoding="utf-8")


def test_a_contender_that_cannot_take_part_does_not_stop_the_others(monkeypatch, tmp_path):
    """Its row says why instead."""
    monkeypatch.setattr("benchmarks.runs.ENVIRONMENTS", tmp_path)
    runs = Runs(replace(PLANS["quick"], peers=True, seconds=60.0))

    seen = runs.measure(["inspect_ai", "offline"], 50_001)

    assert "not installed" in (seen["inspect_ai"].reason or "")
    assert "a job takes 50,000" in (seen["offline"].reason or "")


def test_questions_are_as_many_and_as_long_as_asked_and_no_two_alike():
    """Contenders in other processes ask the same ones."""
    asked = list(questions(1_000))

    assert len(set(asked)) == 1_000
    assert {len(question) for question in asked} == {500}
    assert asked == list(questions(1_000))


def test_each_rule_notices_a_job_after_it_has_ended():
    """Never before, and not later than its longest pause."""
    for rule in polling.RULES:
        noticed = polling.simulate(rule, 600.0)
        assert 0 < noticed.worst <= 60.0
        assert noticed.polls >= 10
    ages = [age for age, _ in zip(polling.RULES[0].poll_ages(), range(100), strict=False)]
    assert all(earlier < later for earlier, later in pairwise(ages))


@pytest.mark.parametrize(("power", "constant"), [(1.0, 0.001), (2.0, 5.0), (0.5, 1.0)])
def test_the_exponent_of_a_fit_is_the_power_of_the_size(power, constant):
    """Whatever the constant factor is."""
    points = [(size, constant * size**power) for size in (1_000, 50_000, 1_000_000)]

    assert wall.exponent(points) == pytest.approx(power)


def test_the_size_of_a_value_counts_what_it_holds_once():
    """A string that two values share is one of them's."""
    text = "x" * 1_000

    assert size_of([[text], [text]]) == (2 * sys.getsizeof([text]) + sys.getsizeof(text)) / 2


def test_the_virtual_server_keeps_its_limits_and_its_books():
    """A batch beyond the token limit is refused when it is validated, and the time with a full queue is counted."""
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
