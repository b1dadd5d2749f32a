"""Reasoning models against the sandbox: room for reasoning, aliases, function tools, warnings."""

from __future__ import annotations

import logging
import sys

import pytest

from distilabel_openai_batch import OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.environment import load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(20)]
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
MODEL = "gpt-6-luna"
ALIAS = "my-deployment"


@pytest.fixture(autouse=True)
def script(monkeypatch, sandbox):
    """Make `asking.py` the script's name, and so the scope's; serve a reasoning model behind an alias too."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])
    sandbox.configure(aliases={ALIAS: MODEL})


def generate(questions=QUESTIONS, kwargs: dict | None = None, **fields) -> list[str | None]:
    llm = OpenAIBatchLLM(**{"model": MODEL, "min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(questions, **kwargs or {})]


def totals(sandbox) -> list[int]:
    return [batch["request_counts"]["total"] for batch in sandbox.books().batches]


@pytest.mark.parametrize("fields", [{}, {"sync_below": 100}], ids=["batch", "synchronous"])
def test_reasoning_model_answers_with_distilabels_defaults(sandbox, fields):
    assert all(generate(**fields))


@pytest.mark.parametrize("effort", ["none", "low", "high"])
def test_reasoning_effort_reaches_the_model(sandbox, effort):
    """More effort takes more tokens."""
    llm = load_as_new_process(OpenAIBatchLLM(model=MODEL, min_poll_interval=0.02, reasoning_effort=effort))
    [output] = llm.generate(QUESTIONS[:1])

    expected = {"none": range(100), "low": range(75, 200), "high": range(1_200, 1_400)}[effort]
    assert output["statistics"]["output_tokens"][0] in expected


@pytest.mark.parametrize("fields", [{}, {"sync_below": 100}, {"preflight": True}], ids=["batch", "sync", "preflight"])
def test_alias_of_a_reasoning_model_is_learned_from_the_refusal(sandbox, caplog, fields):
    """No row is lost, no answer is billed twice, and the next run knows the alias from the start."""
    with caplog.at_level(logging.INFO):
        answers = generate(model=ALIAS, **fields)

    assert all(answers)
    assert caplog.text.count(f"{ALIAS} refuses `max_tokens`") == 1
    books = sandbox.books()
    assert sum(books.billed_bodies.values()) + books.sync == 20
    assert max(books.billed.values(), default=1) == 1
    batches = len(books.batches)

    assert generate(model=ALIAS, **fields) == answers
    assert len(sandbox.books().batches) == batches

    assert all(generate([*QUESTIONS, [{"role": "user", "content": "And one more?"}]], model=ALIAS, **fields))
    assert totals(sandbox)[batches:] in ([1], [])


def test_preflight_learns_an_alias_before_the_upload(sandbox):
    """A single batch is enough: the trial is repeated with the right parameter."""
    assert all(generate(model=ALIAS, preflight=True))
    assert totals(sandbox) == [19]


def test_limit_of_the_user_is_kept_behind_an_alias(sandbox):
    assert all(generate(kwargs={"max_new_tokens": 400}, model=ALIAS))
    assert set(generate(QUESTIONS[:2], {"max_new_tokens": 5}, model=ALIAS)) == {None}


def test_budget_counts_the_room_for_reasoning(sandbox, monkeypatch):
    """Ten answers of 25,000 tokens cost more than ten answers of 128 tokens."""
    pytest.importorskip("genai_prices")
    import re

    from distilabel_openai_batch import BudgetError
    from distilabel_openai_batch.pricing import prices

    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])
    rates = prices.find_rates(MODEL, sandbox.base_url, 1_795_500_000.0)
    bound = float(rates.batch.tokens_out) * 25_000 / 1e6 * 20

    with pytest.raises(BudgetError):
        generate(budget=bound * 0.9)
    assert all(generate(budget=bound * 1.1))


@pytest.mark.parametrize(
    ("model", "batches"), [(MODEL, 1), (ALIAS, 3), ("gpt-4o", 1)], ids=["named", "alias", "older model"]
)
def test_function_tools_are_replaced_on_models_that_refuse_them(sandbox, model, batches):
    """Behind an alias the limit is refused first, then the tool."""
    answers = generate(QUESTIONS[:3], model=model, structured_output={"schema": SCHEMA, "mode": "tools"})

    assert all(answers)
    assert len(totals(sandbox)) == batches


def test_earlier_answers_of_the_small_limit_are_found(sandbox, monkeypatch):
    """A run of an earlier release sent 128 tokens: its texts are reused, and its empty answers submitted again."""
    sandbox.configure(reasoning_tokens=100)
    sandbox.configure(failures=[RequestFailure(contains="number 3.", status=400)])
    with monkeypatch.context() as earlier:
        earlier.setattr("distilabel_openai_batch.plugin.model_parameters.fit_body", lambda body, *_, **__: body)
        first = generate()
    assert totals(sandbox) == [20]

    sandbox.configure(failures=[])
    second = generate()

    assert all(second)
    assert [text for i, text in enumerate(second) if i != 3] == [text for i, text in enumerate(first) if i != 3]
    assert totals(sandbox) == [20, 1]


def test_small_limit_is_warned_of_before_the_upload(sandbox, caplog):
    with caplog.at_level(logging.WARNING):
        answers = generate(kwargs={"max_new_tokens": 128})

    assert answers == [None] * 20
    warning = caplog.text.index("`max_new_tokens=128` is probably too small for gpt-6-luna")
    assert warning < caplog.text.index("20 requests failed")


def test_preflight_warns_of_a_limit_that_reasoning_nearly_spends(sandbox, caplog):
    with caplog.at_level(logging.WARNING):
        generate(kwargs={"max_new_tokens": 350}, model=ALIAS, preflight=True)

    assert f"The preflight's answer of {ALIAS} took" in caplog.text
    assert "300 of them for reasoning" in caplog.text


def test_preflight_ends_a_run_whose_limit_leaves_no_text(sandbox):
    with pytest.raises(RequestsFailedError, match="raise `max_new_tokens`"):
        generate(kwargs={"max_new_tokens": 128}, model=ALIAS, preflight=True)
    assert totals(sandbox) == []
