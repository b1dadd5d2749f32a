"""What the command line says of money."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from decimal import Decimal

import orjson
import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, build_result_line, parse_result_line
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost, dollars
from distilabel_openai_batch.sandbox import Settings
from tests.integration.test_cli import ask, run
from tests.support.environment import API_KEY
from tests.unit.pricing.test_prices import NOVEMBER

pytest.importorskip("genai_prices")

MINI = "gpt-4o-mini"


@pytest.fixture(autouse=True)
def the_sandbox_bills_as_openai_does(monkeypatch):
    """Its address is that of a server whose prices are known."""
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])


@pytest.fixture(scope="module")
def asked(running_sandbox, tmp_path_factory):
    """A ledger with a job of twelve requests, three that were asked at once, and one of a model without a price."""
    directory = tmp_path_factory.mktemp("costs")
    running_sandbox.reset(Settings())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["asking.py"])
        fields = {"ledger_dir": str(directory), "base_url": running_sandbox.base_url, "api_key": API_KEY}
        ask(**fields)
        ask([[{"role": "user", "content": f"Say letter {i}."}] for i in range(3)], sync_below=9, **fields)
        monkeypatch.setattr(sys, "argv", ["other.py"])
        calls.scope_memories.clear()
        adopt(directory, ScopeName("other.py", "", running_sandbox.base_url + "/"))
    return directory


CACHED = {"prompt_tokens": 2_000, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1_500}}


def adopt(directory, scope: ScopeName, model="mine", usage=CACHED, batch_id="batch_mine") -> None:
    """A batch of another machine with one answer; if nothing else is said, of a model that nobody lists."""
    line = build_result_line(f"{'a' * 32}-0", {"model": model, "usage": usage})
    batch = Batch(batch_id, "completed", total=1, created_at=time.time())
    with closing(Ledger(directory, scope)) as ledger:
        ledger.adopted_jobs.add_ended(batch, batch_id, [parse_result_line(line)])


@pytest.fixture
def directory(asked, monkeypatch):
    """The same, for the environment to choose."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(asked))
    return asked


def expected(job) -> tuple[Decimal, Decimal]:
    """What it cost and what it would have cost at once, by the list."""
    at_once = (job.tokens_in * Decimal("0.15") + job.tokens_out * Decimal("0.6")) / 1_000_000
    return (at_once if job.is_synchronous else at_once / 2), at_once


def test_jobs_say_what_they_cost(directory):
    """At half the price, or in full where they were asked at once; what is not listed is null, and `?`."""
    entries = LedgerReader(directory).jobs()
    jobs = json.loads(run("jobs", "--json").stdout)
    for job, entry in zip(jobs[:2], entries, strict=False):
        spent, at_once = expected(entry)
        assert (job["cost"], job["cost_at_once"]) == (pytest.approx(float(spent)), pytest.approx(float(at_once)))
        assert job["saved"] == pytest.approx(float(at_once - spent))
    assert [job["answered_by"] for job in jobs] == ["gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18", "mine"]
    assert (jobs[2]["cost"], jobs[2]["saved"], jobs[2]["tokens_cached"]) == (None, None, 1_500)

    lines = run("jobs").stdout.splitlines()
    rows = [line.split() for line in lines[1:]]
    assert rows[1][1] == "(synchronous)"
    assert rows[2][5:7] == ["?", "?"]
    spent = sum(expected(entry)[0] for entry in entries[:2])
    assert rows[3][:4] == ["total", "16/16", "0", dollars(spent)]
    assert "? The price of mine is not known" in run("jobs").stderr


def test_costs_are_told_by_scope_and_model(directory):
    """With the total, the price at once, and what was saved."""
    entries = LedgerReader(directory).jobs()
    spent, at_once = (sum(some) for some in zip(*map(expected, entries[:2]), strict=True))
    header, mine, unknown, total = run("costs").stdout.splitlines()
    assert re.split(r" {2,}|(?<=cached) |(?<=once) ", header.strip())[-4:] == ["tokens out", "cost", "at once", "saved"]
    money = [dollars(spent), dollars(at_once), dollars(at_once - spent)]
    assert mine.split()[:3] == ["asking.py", "gpt-4o-mini-2024-07-18", "15"]
    assert mine.split()[-3:] == money
    assert unknown.split() == ["other.py", "mine", "1", "2,000", "1,500", "5", "?", "?", "?"]
    assert total.split()[-3:] == money
    assert "? The price of mine is not known" in run("costs").stderr

    about = json.loads(run("costs", "--json").stdout)
    assert about["total"]["cost"] == pytest.approx(float(spent))
    assert (about["total"]["answers"], about["total"]["unknown"]) == (16, 1)
    assert [scope["cost"] is None for scope in about["scopes"]] == [False, True]
    [only] = json.loads(run("costs", "other.py", "--json").stdout)["scopes"]
    assert (only["scope"], only["model"], only["cost"]) == ("other.py", "mine", None)


def test_each_request_costs_what_its_own_length_does(tmp_path, running_sandbox, monkeypatch):
    """A prompt above 272,000 tokens is dearer, and no sum of short ones is."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    monkeypatch.setattr(time, "time", lambda: NOVEMBER)
    for number, (tokens_in, dollars_in) in enumerate([(300_000, 0.75), (200_000, 0.25), (272_000, 0.34)]):
        scope = ScopeName(f"{number}.py", "", running_sandbox.base_url + "/")
        adopt(tmp_path, scope, "gpt-5.4", {"prompt_tokens": tokens_in, "completion_tokens": 0}, f"batch_{number}")
        job = json.loads(run("jobs", "--json").stdout)[number]
        assert (job["tokens_in"], job["cost"]) == (tokens_in, dollars_in)
        assert "long" not in job
    assert json.loads(run("costs", "--json").stdout)["total"]["cost"] == 1.34


def test_a_job_is_shown_with_its_cost(directory):
    """And says why it is not known."""
    [job, _, other] = LedgerReader(directory).jobs()
    spent, at_once = expected(job)
    assert f"{dollars(spent)}; saved {dollars(at_once - spent)}" in run("show", job.batch_id).stdout
    shown = run("show", other.batch_id)
    assert "2,000 in (1,500 of them cached), 5 out" in shown.stdout
    assert "?; saved ?" in shown.stdout
    assert "The price of mine is not known" in shown.stderr


def test_without_the_price_list_it_is_said_how_to_install_it(directory, monkeypatch):
    """And no number is made up."""
    monkeypatch.setattr(prices, "_price_list", lambda: None)
    prices._rates.cache_clear()
    for command in ("jobs", "costs"):
        ran = run(command)
        assert "pip install 'distilabel-openai-batch[prices]'" in ran.stderr
        assert "$" not in ran.stdout
    prices._rates.cache_clear()


def test_what_was_forgotten_is_not_known(running_sandbox, tmp_path, monkeypatch):
    """The job stays, and says that its cost is unknown instead of nothing."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    scope = ScopeName("other.py", "", running_sandbox.base_url + "/")
    ledger = Ledger(tmp_path, scope)
    batch = Batch("batch_1", "completed", completed=1, total=1)
    ledger.adopted_jobs.add_ended(
        batch, "key", [(f"{'a' * 32}-0", Answer.of({"usage": {"prompt_tokens": 9}, "model": MINI}))]
    )
    ledger.requests.forget()
    ledger.close()
    assert json.loads(run("jobs", "--json").stdout)[0]["cost"] is None
    assert "were forgotten" in run("costs").stderr


def test_a_ledger_of_an_older_release_is_read(directory, tmp_path, monkeypatch):
    """Which has no column for cached tokens, and is not changed by looking at it."""
    shutil.copy(directory / "ledger.sqlite3", tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        database.execute("ALTER TABLE requests DROP COLUMN tokens_cached")
        database.execute("PRAGMA user_version = 3")
    database.close()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    jobs = orjson.loads(run("jobs", "--json").stdout)
    assert [job["tokens_cached"] for job in jobs] == [0, 0, 0]
    assert jobs[0]["cost"] > 0
    assert "tokens_cached" not in str(LedgerReader(tmp_path)._query("SELECT sql FROM sqlite_master"))


@pytest.mark.parametrize(
    ("amount", "words"),
    [("0", "$0.00"), ("0.00001", "<$0.0001"), ("0.0123", "$0.0123"), ("0.5", "$0.5000"), ("1234.567", "$1,234.57")],
)
def test_money_is_written_as_people_do(amount, words):
    """Small sums with more digits, and none as nothing that is something."""
    assert dollars(Decimal(amount)) == words


def test_nothing_asked_costs_nothing():
    """A sum of nothing."""
    assert Cost() + Cost() == Cost(Decimal(0), Decimal(0))
