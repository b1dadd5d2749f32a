"""What may be spent: nothing is bought that may cost more."""

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
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.job_table import JobTable
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.budget import Budget
from distilabel_openai_batch.sandbox import Fault, RequestFailure

pytest.importorskip("genai_prices")

# 11 tokens in and 1,000 out at most each: $0.0003 in a batch, $0.0006 at once. The sandbox answers with far less.
QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(10)]
LONGEST = 1_000


@pytest.fixture(autouse=True)
def the_sandbox_bills_as_openai_does(monkeypatch):
    """Its address is that of a server whose prices are known."""
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])
    monkeypatch.setattr(transport.Patience, "pause", lambda self, attempt: 0.001)


def loaded(**fields) -> OpenAIBatchLLM:
    """What a process has that begins now."""
    calls.scope_memories.clear()
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    llm.load()
    return llm


def ask(llm: OpenAIBatchLLM, questions=QUESTIONS) -> list[str | None]:
    return [output["generations"][0] for output in llm.generate(questions, max_new_tokens=LONGEST)]


def budget_of(llm: OpenAIBatchLLM) -> Budget:
    return llm._sessions._open.args[0].budget


def bought(sandbox) -> int:
    books = sandbox.books()
    return len(books.billed_bodies) + len(books.sync_bodies)


def test_what_may_cost_too_much_is_not_submitted(sandbox):
    """No file, no batch; the error says what it may cost, and what may be spent."""
    with pytest.raises(BudgetError, match=r"10 requests of gpt-4o-mini may cost up to \$0.0030, beside \$0.00 that is"):
        ask(loaded(budget=0.003))
    books = sandbox.books()
    assert (bought(sandbox), len(books.batches), len(books.files)) == (0, 0, 0)


def test_what_may_be_spent_is_bought(sandbox):
    """And bought once: what is owned costs nothing, so a later run needs no budget for it."""
    answers = ask(loaded(budget=0.0031))
    assert all(answers)
    assert ask(loaded(budget=0)) == answers
    with pytest.raises(BudgetError, match="1 requests"):
        ask(loaded(budget=0), [*QUESTIONS, [{"role": "user", "content": "Another one."}]])
    assert bought(sandbox) == 10


def test_an_answer_counts_with_what_it_was_billed(sandbox):
    """The bound gives way to the bill: one after another they fit where all together do not."""
    llm = loaded(budget=0.0008)
    for question in QUESTIONS:
        assert ask(llm, [question]) != [None]
    assert bought(sandbox) == 10


def test_the_budget_lasts_from_load_to_unload(sandbox):
    """However often it is asked: until what was billed leaves too little."""
    llm = loaded(budget=0.0005)

    def ask_on() -> None:
        for number in range(100):
            ask(llm, [[{"role": "user", "content": f"Say number {number}. " + "Slowly, please. " * 100}]])

    with pytest.raises(BudgetError, match=r"beside \$0.000\d that is spent"):
        ask_on()
    assert 0 < bought(sandbox) < 10


@pytest.mark.parametrize(
    ("fields", "budget", "may"),
    [
        ({"sync_below": 11}, 0.006, False),
        ({"sync_below": 11}, 0.0061, True),
        ({"sync_below": 10}, 0.0031, True),
        # One of them at the full price.
        ({"preflight": True}, 0.0031, False),
        ({"preflight": True}, 0.0034, True),
    ],
)
def test_what_is_asked_at_once_counts_in_full(sandbox, fields, budget, may):
    """Twice what a batch costs."""
    llm = loaded(budget=budget, **fields)
    if may:
        assert all(ask(llm))
        return
    with pytest.raises(BudgetError):
        ask(llm)
    assert bought(sandbox) == 0


def test_what_a_deadline_leaves_over_needs_the_full_price(sandbox):
    """Where there is not enough for that, the run ends, and what was answered is kept."""
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(BudgetError, match="at full price"):
        ask(loaded(budget=0.0031, deadline=0.2))
    assert bought(sandbox) == 0
    assert all(ask(loaded(budget=0.0061, deadline=0.2)))


def test_a_request_that_failed_costs_nothing_and_is_reckoned_again(sandbox):
    """Asked thrice, it never counts more than once."""
    sandbox.configure(failures=[RequestFailure(contains="number 3", status=500, times=2)])
    assert all(ask(loaded(budget=0.0031)))


def test_without_a_synchronous_endpoint_it_is_the_price_of_a_batch(sandbox):
    """What was to be asked at once goes into a batch, and counts so."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=404, body="{}", times=-1))
    llm = loaded(budget=0.0061, sync_below=11)
    assert all(ask(llm))
    assert len(sandbox.books().batches) == 1


def test_a_job_of_a_dead_run_counts_once_it_is_taken_over(sandbox):
    """Its answers come to this run: what is bought beside it has to fit the budget with it."""
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        ask(loaded(wait=False, budget=0.0031))
    sandbox.configure(in_progress_seconds=0.0)
    llm = loaded(budget=0.001)
    answers = ask(llm)
    assert all(answers)
    assert 0 < budget_of(llm)._spent < 0.003
    assert len(sandbox.books().batches) == 1


def test_what_another_process_buys_costs_nothing_here(sandbox, monkeypatch):
    """It is waited for, and the budget is as it was."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])
    llm = loaded(budget=0.0031)
    plan = JobTable.plan

    def plan_after_another(self, shard, *state):
        monkeypatch.setattr(JobTable, "plan", plan)
        other = Ledger(ledger_directory(), ScopeName("asking.py", "", f"{sandbox.base_url}/"))
        plan(other.jobs, Shard.of(shard.requests[:5]))
        other.close()
        return plan(self, shard, *state)

    monkeypatch.setattr(JobTable, "plan", plan_after_another)
    assert all(ask(llm))
    assert (budget_of(llm)._expected, budget_of(llm)._expected_sum) == ({}, 0)


@pytest.mark.parametrize("kind", [OpenAIBatchLLM, OpenAIBatchEmbeddings])
def test_a_budget_for_what_has_no_price_is_an_error_at_once(sandbox, kind):
    """Before anything is asked; it is never ignored."""
    with pytest.raises(BudgetError, match=r"A budget of \$5.00 cannot be kept. The price of mine is not known"):
        kind(model="mine", budget=5).load()
    kind(model="mine").load()


async def test_a_request_without_a_limit_is_refused():
    """Nobody knows what its answer may cost."""
    request = Request("a-0", "/v1/chat/completions", "gpt-4o-mini", b'{"messages":[]}')
    with pytest.raises(BudgetError, match="sets its answer no limit"):
        await Budget(100, "http://127.0.0.1/").reserve([request], at_once=False)


def test_embeddings_have_a_budget_too(sandbox):
    """They have no output."""
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small", budget=0.000001, min_poll_interval=0.02)
    embeddings.load()
    assert len(embeddings.encode(["Why is the sky blue?"])) == 1
    with pytest.raises(BudgetError):
        embeddings.encode(["Why is the sky blue? " * 100])


def test_a_pipeline_ends_with_the_words_of_the_error(sandbox):
    """As with every other error of the run."""
    with Pipeline(name="budget") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
        load >> TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini", budget=0.00001))
    with pytest.raises(BudgetError, match="1 requests of gpt-4o-mini may cost up to"):
        pipeline.run(use_cache=False)
    assert bought(sandbox) == 0


def test_a_pipeline_with_a_budget_and_no_price_does_not_begin(sandbox):
    """The error is the run's, not a step's that could not be loaded."""
    with Pipeline(name="no-price") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
        load >> TextGeneration(llm=OpenAIBatchLLM(model="mine", budget=10))
    with pytest.raises(BudgetError, match="cannot be kept"):
        pipeline.run(use_cache=False)
    assert bought(sandbox) == 0
