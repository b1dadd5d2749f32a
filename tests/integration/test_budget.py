"""Budgets against the sandbox: no request is submitted that may exceed the budget."""

from __future__ import annotations

import re
import sys

import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import BudgetError, OpenAIBatchEmbeddings, OpenAIBatchLLM
from distilabel_openai_batch.api import transport
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.job_table import JobTable
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.budget import Budget
from distilabel_openai_batch.sandbox import Fault, RequestFailure

pytest.importorskip("genai_prices")

# Each chat has 11 tokens in and at most 1,000 out: $0.0003 in a batch, $0.0006 synchronous. The sandbox's answers are
# far shorter.
CHATS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(10)]
MAX_NEW_TOKENS = 1_000


@pytest.fixture(autouse=True)
def openai_prices(monkeypatch):
    """Give the sandbox's address OpenAI's prices, and shorten the pauses between retries."""
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])
    monkeypatch.setattr(transport.Patience, "pause", lambda self, attempt: 0.001)


def load_llm(**fields) -> OpenAIBatchLLM:
    """Load an LLM as a new process would."""
    calls.scope_memories.clear()
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    llm.load()
    return llm


def generate(llm: OpenAIBatchLLM, chats=CHATS) -> list[str | None]:
    return [output["generations"][0] for output in llm.generate(chats, max_new_tokens=MAX_NEW_TOKENS)]


def budget_of(llm: OpenAIBatchLLM) -> Budget:
    return llm._sessions._settings.budget


def count_billed(sandbox) -> int:
    books = sandbox.books()
    return len(books.billed_bodies) + len(books.sync_bodies)


def test_requests_above_the_budget_are_not_submitted(sandbox):
    """The server gets no file and no batch; the error names the bound, the spent dollars and the budget."""
    with pytest.raises(BudgetError, match=r"10 requests of gpt-4o-mini may cost up to \$0.0030. With \$0.00 spent"):
        generate(load_llm(budget=0.003))
    books = sandbox.books()
    assert (count_billed(sandbox), len(books.batches), len(books.files)) == (0, 0, 0)


def test_answers_in_the_ledger_need_no_budget(sandbox):
    answers = generate(load_llm(budget=0.0031))
    assert all(answers)
    assert generate(load_llm(budget=0)) == answers
    with pytest.raises(BudgetError, match="1 request of"):
        generate(load_llm(budget=0), [*CHATS, [{"role": "user", "content": "Another one."}]])
    assert count_billed(sandbox) == 10


def test_billed_dollars_replace_the_bound(sandbox):
    """Ten chats one after another fit into a budget that ten chats together exceed."""
    llm = load_llm(budget=0.0008)
    for chat in CHATS:
        assert generate(llm, [chat]) != [None]
    assert count_billed(sandbox) == 10


def test_the_budget_lasts_from_load_to_unload(sandbox):
    """Calls succeed until the billed dollars leave too little for one more call."""
    llm = load_llm(budget=0.0005)

    def generate_until_refused() -> None:
        for number in range(100):
            generate(llm, [[{"role": "user", "content": f"Say number {number}. " + "Slowly, please. " * 100}]])

    with pytest.raises(BudgetError, match=r"With \$0.000\d spent"):
        generate_until_refused()
    assert 0 < count_billed(sandbox) < 10


@pytest.mark.parametrize(
    ("fields", "budget", "is_enough"),
    [
        ({"sync_below": 11}, 0.006, False),
        ({"sync_below": 11}, 0.0061, True),
        ({"sync_below": 10}, 0.0031, True),
        # The preflight sends one request at the full price.
        ({"preflight": True}, 0.0031, False),
        ({"preflight": True}, 0.0034, True),
    ],
)
def test_synchronous_requests_count_at_the_full_price(sandbox, fields, budget, is_enough):
    llm = load_llm(budget=budget, **fields)
    if is_enough:
        assert all(generate(llm))
        return
    with pytest.raises(BudgetError):
        generate(llm)
    assert count_billed(sandbox) == 0


def test_requests_after_the_deadline_need_the_full_price(sandbox):
    """If the budget is too low for the full price, the run ends with an error."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(BudgetError, match="at full price"):
        generate(load_llm(budget=0.0031, deadline=0.2))
    assert count_billed(sandbox) == 0
    assert all(generate(load_llm(budget=0.0061, deadline=0.2)))


def test_a_failed_request_costs_nothing(sandbox):
    """Three attempts of one request never reserve more than one bound."""
    sandbox.configure(failures=[RequestFailure(contains="number 3", status=500, times=2)])
    assert all(generate(load_llm(budget=0.0031)))


def test_without_a_synchronous_endpoint_requests_go_into_a_batch(sandbox):
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=404, body="{}", times=-1))
    llm = load_llm(budget=0.0061, sync_below=11)
    assert all(generate(llm))
    assert len(sandbox.books().batches) == 1


def test_the_continued_job_of_an_earlier_run_counts(sandbox):
    """The run that collects the answers is billed for them."""
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        generate(load_llm(wait=False, budget=0.0031))
    sandbox.configure(in_progress_seconds=0.0)
    llm = load_llm(budget=0.001)
    answers = generate(llm)
    assert all(answers)
    assert 0 < budget_of(llm)._spent < 0.003
    assert len(sandbox.books().batches) == 1


def test_the_job_of_another_process_costs_nothing(sandbox, monkeypatch):
    """The run waits for the job, and releases its reservation."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])
    llm = load_llm(budget=0.0031)
    plan = JobTable.plan

    def plan_after_another(self, shard, *state):
        monkeypatch.setattr(JobTable, "plan", plan)
        other = Ledger(ledger_directory(), ScopeName("asking.py", "", f"{sandbox.base_url}/"))
        plan(other.jobs, Shard.of(shard.requests[:5]))
        other.close()
        return plan(self, shard, *state)

    monkeypatch.setattr(JobTable, "plan", plan_after_another)
    assert all(generate(llm))
    assert (budget_of(llm)._reserved, budget_of(llm)._reserved_sum) == ({}, 0)


@pytest.mark.parametrize("kind", [OpenAIBatchLLM, OpenAIBatchEmbeddings])
def test_loading_fails_with_a_budget_for_a_model_without_a_price(sandbox, kind):
    with pytest.raises(BudgetError, match=r"The budget of \$5.00 cannot be kept. The price of mine is not known"):
        kind(model="mine", budget=5).load()
    kind(model="mine").load()


def test_embeddings_have_a_budget_too(sandbox):
    """Embeddings are billed for tokens in only."""
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small", budget=0.000001, min_poll_interval=0.02)
    embeddings.load()
    assert len(embeddings.encode(["Why is the sky blue?"])) == 1
    with pytest.raises(BudgetError):
        embeddings.encode(["Why is the sky blue? " * 100])


def test_a_pipeline_raises_the_budget_error_of_its_step(sandbox):
    with Pipeline(name="budget") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
        load >> TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini", budget=0.00001))
    with pytest.raises(BudgetError, match="1 request of gpt-4o-mini may cost up to"):
        pipeline.run(use_cache=False)
    assert count_billed(sandbox) == 0


def test_a_pipeline_with_a_budget_and_no_price_does_not_begin(sandbox):
    """The error is a `BudgetError`, not distilabel's error about a step that failed to load."""
    with Pipeline(name="no-price") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
        load >> TextGeneration(llm=OpenAIBatchLLM(model="mine", budget=10))
    with pytest.raises(BudgetError, match="cannot be kept"):
        pipeline.run(use_cache=False)
    assert count_billed(sandbox) == 0
