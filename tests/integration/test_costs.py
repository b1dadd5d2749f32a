"""Tests of the costs that the commands print, with the sandbox priced like OpenAI."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
import time
from decimal import Decimal

import orjson
import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.errors import BudgetError
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import format_dollars
from distilabel_openai_batch.sandbox import ResultFault, Settings
from tests.support.commands import adopt_answer, generate, run_command
from tests.support.environment import API_KEY
from tests.unit.pricing.test_prices import NOVEMBER

pytest.importorskip("genai_prices")

MINI = "gpt-4o-mini"


@pytest.fixture(autouse=True)
def openai_prices(monkeypatch):
    """Give the sandbox's address OpenAI's prices."""
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])


@pytest.fixture(scope="module")
def priced_run(running_sandbox, tmp_path_factory):
    """Return the directory of a ledger with twelve batched, three synchronous and one unpriced request."""
    directory = tmp_path_factory.mktemp("costs")
    running_sandbox.reset(Settings())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["asking.py"])
        fields = {"ledger_dir": str(directory), "base_url": running_sandbox.base_url, "api_key": API_KEY}
        generate(**fields)
        generate([[{"role": "user", "content": f"Say letter {i}."}] for i in range(3)], sync_below=9, **fields)
        monkeypatch.setattr(sys, "argv", ["other.py"])
        calls.scope_memories.clear()
        adopt_answer(directory, ScopeName("other.py", "", running_sandbox.base_url + "/"))
    return directory


@pytest.fixture
def directory(priced_run, monkeypatch):
    """Make that ledger the default one, and return its directory."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(priced_run))
    return priced_run


def expected(job) -> tuple[Decimal, Decimal]:
    """Return the cost of a job and its synchronous cost, by the list price of gpt-4o-mini."""
    synchronous = (job.tokens_in * Decimal("0.15") + job.tokens_out * Decimal("0.6")) / 1_000_000
    return (synchronous if job.is_synchronous else synchronous / 2), synchronous


def test_jobs_shows_half_the_price_for_batches_and_the_full_price_otherwise(directory):
    """A cost without a list price is `null` in JSON and `?` in the table."""
    entries = LedgerReader(directory).jobs()
    jobs = json.loads(run_command("jobs", "--json").stdout)
    for job, entry in zip(jobs[:2], entries, strict=False):
        spent, synchronous = expected(entry)
        assert (job["cost"], job["cost_at_once"]) == (pytest.approx(float(spent)), pytest.approx(float(synchronous)))
        assert job["saved"] == pytest.approx(float(synchronous - spent))
    assert [job["answered_by"] for job in jobs] == ["gpt-4o-mini-2024-07-18", "gpt-4o-mini-2024-07-18", "mine"]
    assert (jobs[2]["cost"], jobs[2]["saved"], jobs[2]["tokens_cached"]) == (None, None, 1_500)

    lines = run_command("jobs").stdout.splitlines()
    rows = [line.split() for line in lines[1:]]
    assert rows[1][1] == "(synchronous)"
    assert rows[0][5:7] == ["?", "?"]
    spent = sum(expected(entry)[0] for entry in entries[:2])
    assert rows[3][:4] == ["total", "16/16", "0", "≥"]
    assert rows[3][4] == format_dollars(spent)
    assert "? The price of mine is not known" in run_command("jobs").stderr


def test_costs_lists_scopes_and_models_with_a_total(directory):
    entries = LedgerReader(directory).jobs()
    spent, synchronous = (sum(column) for column in zip(*map(expected, entries[:2]), strict=True))
    header, priced, unpriced, total = run_command("costs").stdout.splitlines()
    assert re.split(r" {2,}|(?<=cached) |(?<=price) ", header.strip())[-4:] == [
        "tokens out",
        "cost",
        "full price",
        "saved",
    ]
    money = [format_dollars(spent), format_dollars(synchronous), format_dollars(synchronous - spent)]
    assert priced.split()[:3] == ["asking.py", "gpt-4o-mini-2024-07-18", "15"]
    assert priced.split()[-3:] == money
    assert unpriced.split() == ["other.py", "mine", "1", "2,000", "1,500", "5", "?", "?", "?"]
    assert total.split()[-6:] == [part for amount in money for part in ("≥", amount)]
    assert "? The price of mine is not known" in run_command("costs").stderr

    summary = json.loads(run_command("costs", "--json").stdout)
    assert summary["total"]["cost"] == pytest.approx(float(spent))
    assert (summary["total"]["answers"], summary["total"]["unknown"]) == (16, 1)
    assert [scope["cost"] is None for scope in summary["scopes"]] == [False, True]
    [only] = json.loads(run_command("costs", "other.py", "--json").stdout)["scopes"]
    assert (only["scope"], only["model"], only["cost"]) == ("other.py", "mine", None)


def test_the_long_prompt_price_applies_to_single_requests(tmp_path, running_sandbox, monkeypatch):
    """A prompt above 272,000 tokens costs more; a sum of shorter prompts does not."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    monkeypatch.setattr(time, "time", lambda: NOVEMBER)
    for number, (tokens_in, dollars_in) in enumerate([(300_000, 0.75), (200_000, 0.25), (272_000, 0.34)]):
        scope = ScopeName(f"{number}.py", "", running_sandbox.base_url + "/")
        adopt_answer(
            tmp_path, scope, "gpt-5.4", {"prompt_tokens": tokens_in, "completion_tokens": 0}, f"batch_{number}"
        )
        job = json.loads(run_command("jobs", "--json").stdout)[number]
        assert (job["tokens_in"], job["cost"]) == (tokens_in, dollars_in)
        assert "long" not in job
    assert json.loads(run_command("costs", "--json").stdout)["total"]["cost"] == 1.34


def test_show_prints_the_cost_or_the_reason_why_the_cost_is_unknown(directory):
    [job, _, other] = LedgerReader(directory).jobs()
    spent, synchronous = expected(job)
    assert (
        f"{format_dollars(spent)}; saved {format_dollars(synchronous - spent)}"
        in run_command("show", job.batch_id).stdout
    )
    shown = run_command("show", other.batch_id)
    assert "2,000 in (1,500 of them cached), 5 out" in shown.stdout
    assert "?; saved ?" in shown.stdout
    assert "The price of mine is not known" in shown.stderr


def test_without_the_price_list_costs_are_unknown_and_the_extra_is_named(directory, monkeypatch):
    monkeypatch.setattr(prices, "_price_list", lambda: None)
    prices._find_rates.cache_clear()
    for command in ("jobs", "costs"):
        ran = run_command(command)
        assert "pip install 'distilabel-openai-batch[prices]'" in ran.stderr
        assert "$" not in ran.stdout
    prices._find_rates.cache_clear()


def test_the_cost_of_forgotten_answers_is_unknown(running_sandbox, tmp_path, monkeypatch):
    """The job stays, with an unknown cost instead of none."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    scope = ScopeName("other.py", "", running_sandbox.base_url + "/")
    ledger = Ledger(tmp_path, scope)
    batch = Batch("batch_1", "completed", completed=1, total=1)
    ledger.adopted_jobs.add_ended(
        batch, "key", [(f"{'a' * 32}-0", Answer.of({"usage": {"prompt_tokens": 9}, "model": MINI}))]
    )
    ledger.requests.forget()
    ledger.close()
    assert json.loads(run_command("jobs", "--json").stdout)[0]["cost"] is None
    assert "were forgotten" in run_command("costs").stderr


def test_tokens_of_a_lost_line_are_reported_and_priced(sandbox, caplog, monkeypatch):
    """The server billed both answers of the request; the ledger has one of them."""
    monkeypatch.setattr(sys, "argv", ["lost.py"])
    sandbox.add_fault(ResultFault(contains="number 3", kind="malform", times=1))
    generate()
    books = sandbox.books()
    billed_in = sum(batch["usage"]["input_tokens"] for batch in books.batches)
    [lost_in] = re.findall(r"([\d,]+) tokens in and [\d,]+ out were billed, not collected", caplog.text)

    costs = json.loads(run_command("costs", "--json").stdout)["total"]
    assert costs["tokens_in"] == billed_in
    assert costs["not_collected_in"] == int(lost_in) > 0
    command = run_command("costs")
    assert f"Of these tokens, {lost_in} in and" in command.stderr
    first = LedgerReader(ledger_directory()).jobs()[0]
    assert f"{lost_in} in" in run_command("show", first.batch_id).stdout.partition("not collected")[2]


def test_a_run_with_prices_of_its_own_records_them(sandbox, caplog, monkeypatch):
    """The commands know the prices of a server that no list has; a budget and the log use the same prices."""
    monkeypatch.setattr(sys, "argv", ["own.py"])
    monkeypatch.setattr(prices, "_PROVIDERS", [])
    caplog.set_level("INFO")
    generate(prices={"gpt-4o-mini": {"input": 1_000, "output": 0}}, budget=100)
    [job] = LedgerReader(ledger_directory()).jobs()
    cost = Decimal(job.tokens_in) / 1_000
    assert f"cost {format_dollars(cost)} by your own prices" in caplog.text
    assert json.loads(run_command("costs", "--json").stdout)["total"]["cost"] == pytest.approx(float(cost))
    with pytest.raises(BudgetError, match="exceeds the budget"):
        generate([[{"role": "user", "content": "Why? " * 99}]], prices={"*": {"input": 1_000, "output": 9}}, budget=0.1)
    with pytest.raises(BudgetError, match="State them in `prices`"):
        generate(budget=1)


def test_a_budget_is_rehearsed_with_openai_s_prices_and_prompt_cache(sandbox, monkeypatch):
    """The cost of the answers is the list price of each kind of tokens, and stays within the bound of the budget."""
    monkeypatch.setattr(sys, "argv", ["rehearsal.py"])
    monkeypatch.setattr(prices, "_PROVIDERS", [])
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_PRICES", "openai")
    sandbox.reset(Settings(prompt_cache=True))
    prompts = [[{"role": "user", "content": f"{'Long ' * 1_000}{i}"}] for i in range(3)]
    with pytest.raises(BudgetError, match="exceeds the budget"):
        generate(prompts, model="gpt-6-luna", budget=0.0001)
    generate(prompts, model="gpt-6-luna", budget=0.05)
    total = json.loads(run_command("costs", "--json").stdout)["total"]
    assert (total["tokens_cached"], total["tokens_reasoning"]) == (2 * 1_024, 3 * 300)
    assert total["tokens_written"] == total["tokens_in"] - total["tokens_cached"]
    rates = prices.find_rates("gpt-6-luna", "", time.time(), "openai").batch
    expected = (
        total["tokens_cached"] * rates.tokens_cached
        + total["tokens_written"] * rates.tokens_written
        + total["tokens_out"] * rates.tokens_out
    ) / 1_000_000
    assert total["cost"] == pytest.approx(float(expected))


def test_a_ledger_without_the_column_for_cached_tokens_is_read_unchanged(directory, tmp_path, monkeypatch):
    """Version 3 of the schema has no such column."""
    shutil.copy(directory / "ledger.sqlite3", tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        database.execute("ALTER TABLE requests DROP COLUMN tokens_cached")
        for table in ("job_counts", "packs", "answer_parts"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 3")
    database.close()
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    jobs = orjson.loads(run_command("jobs", "--json").stdout)
    assert [job["tokens_cached"] for job in jobs] == [0, 0, 0]
    assert jobs[0]["cost"] > 0
    assert "tokens_cached" not in str(LedgerReader(tmp_path)._query("SELECT sql FROM sqlite_master"))
