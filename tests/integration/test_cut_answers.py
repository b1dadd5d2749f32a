"""Answers that the limit of tokens cuts, against the sandbox: kept, failed, or submitted again."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.engine.cut_answers import MAX_DOUBLINGS
from distilabel_openai_batch.hooks.failure_columns import output_cells
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.token_estimates import estimate_usage
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.commands import run_command
from tests.support.environment import load_as_new_process

pytestmark = pytest.mark.usefixtures("small_packs")

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
WAYS = {"in a batch": {}, "synchronously": {"sync_below": 100}}


@pytest.fixture(autouse=True)
def script(monkeypatch, sandbox):
    """Make `asking.py` the script's name, and so the scope's."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])


def generate(limit: int | None = 3, questions=QUESTIONS, num_generations=1, **fields) -> list[dict]:
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    kwargs = {"max_new_tokens": limit} if limit else {}
    return load_as_new_process(llm).generate(questions, num_generations=num_generations, **kwargs)


def texts(outputs) -> list[str | None]:
    return [output["generations"][0] for output in outputs]


def cells(outputs) -> list[tuple[str, str] | None]:
    """Return code and message of each output's first generation in the failure column."""
    found = [output_cells(output, 1)[0] for output in outputs]
    return [cell and (cell["code"], cell["message"]) for cell in found]


def totals(sandbox) -> list[int]:
    """Return the number of requests of each batch."""
    return [batch["request_counts"]["total"] for batch in sandbox.books().batches]


def jobs(*arguments: str) -> list[dict]:
    return json.loads(run_command("jobs", "--json", *arguments).stdout)


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
def test_cut_text_is_kept_and_reported(sandbox, caplog, fields):
    """The log, `jobs` and the row's failure column report the cut; a second run reports the same without a bill."""
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            outputs = generate(**fields)

        assert all(texts(outputs))
        assert cells(outputs) == [("truncated", "The answer was cut at max_new_tokens=3.")] * 6
        assert "6 of 6 answers were cut at max_new_tokens=3; their text is kept." in caplog.text
        assert "6 of 6 requests answered, 0 failed" in caplog.text
        assert [(job["cut"], job["failed"], job["answered"]) for job in jobs()] == [(6, 0, 6)]
    books = sandbox.books()
    assert sum(books.billed_bodies.values()) + books.sync == 6


def test_whole_answers_are_not_reported(sandbox, caplog):
    with caplog.at_level(logging.INFO):
        outputs = generate(None)

    assert cells(outputs) == [None] * 6
    assert "were cut" not in caplog.text
    assert [job["cut"] for job in jobs()] == [0]


def test_each_of_several_generations_is_reported(sandbox):
    [output] = generate(questions=QUESTIONS[:1], num_generations=2)

    assert [cell["code"] for cell in output_cells(output, 2)] == ["truncated", "truncated"]
    assert all(output["generations"])


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
def test_cut_text_fails_on_request(sandbox, caplog, fields):
    """The row is `None` with the reason, and the advice is to raise the limit; nothing is billed again."""
    with caplog.at_level(logging.INFO):
        outputs = generate(on_truncated="fail", **fields)

    assert texts(outputs) == [None] * 6
    assert cells(outputs) == [("truncated", "The answer was cut at max_new_tokens=3.")] * 6
    assert "0 of 6 requests answered, 6 failed" in caplog.text
    assert "these rows get up to 8 times the limit. Or raise `max_new_tokens`" in caplog.text
    assert "truncated" in run_command("failures").stdout
    assert texts(generate(**fields)) != [None] * 6
    books = sandbox.books()
    assert sum(books.billed_bodies.values()) + books.sync == 6


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
def test_cut_answers_are_submitted_again_with_twice_the_limit(sandbox, caplog, fields):
    """The whole answers equal answers without a limit; only cut answers are submitted, and each once."""
    whole = texts(generate(None, model="gpt-4o-mini"))
    longest = max(len(text) for text in whole)
    limit = longest // 4 // 3

    with caplog.at_level(logging.INFO):
        outputs = generate(limit, on_truncated="retry", **fields)

    assert texts(outputs) == whole
    assert cells(outputs) == [None] * 6
    assert "submitted again with limits of up to" in caplog.text
    assert "🏁 6 of 6 requests answered, 0 failed" in caplog.text
    books = sandbox.books()
    assert max([*books.billed_bodies.values(), *books.sync_bodies.values()]) == 1


def test_retries_of_an_interrupted_run_are_found_again(sandbox):
    """The second run submits nothing: the first answers and their retries are in the ledger."""
    first = generate(6, on_truncated="retry")
    billed = sandbox.books().billed_bodies

    assert texts(generate(6, on_truncated="retry")) == texts(first)
    assert sandbox.books().billed_bodies == billed


def test_empty_answers_of_a_reasoning_model_are_submitted_again(sandbox, caplog):
    """An empty answer is billed: a second run does not submit its request again with the same limit."""
    with caplog.at_level(logging.INFO):
        outputs = generate(200, on_truncated="retry", model="gpt-6-luna")

    assert all(texts(outputs))
    assert totals(sandbox)[:2] == [6, 6]
    assert "0 failed" in caplog.text
    assert "No failed requests." in run_command("failures").stdout
    assert len(run_command("results").stdout.splitlines()) == 6
    assert jobs()[0]["replaced"] == 6
    billed = sandbox.books().billed_bodies
    assert texts(generate(200, on_truncated="retry", model="gpt-6-luna")) == texts(outputs)
    assert sandbox.books().billed_bodies == billed


def test_doublings_are_bounded(sandbox, caplog):
    """A limit that stays too small fails in the end, with the tokens of all attempts billed."""
    sandbox.configure(reasoning_tokens=10_000)

    with caplog.at_level(logging.INFO):
        outputs = generate(10, on_truncated="retry", model="gpt-6-luna", questions=QUESTIONS[:2])

    assert texts(outputs) == [None, None]
    assert totals(sandbox) == [2] * (MAX_DOUBLINGS + 1)
    assert [cell[0] for cell in cells(outputs)] == ["length", "length"]
    assert "2 requests failed: The token limit was spent" in caplog.text
    assert f"🏁 0 of 2 requests answered, 2 failed, {2 * MAX_DOUBLINGS} retried" in caplog.text


def test_refused_retry_keeps_the_cut_text(sandbox, caplog):
    """The server refuses a limit above the model's own. Each request counts once, and as answered."""
    sandbox.configure(failures=[RequestFailure(contains='"max_tokens":6', message="max_tokens is too large: 6.")])

    with caplog.at_level(logging.INFO):
        outputs = generate(on_truncated="retry")

    assert "🏁 6 of 6 requests answered, 0 failed, 6 retried" in caplog.text

    assert all(texts(outputs))
    assert cells(outputs) == [("truncated", "The answer was cut at max_new_tokens=3.")] * 6


def test_answer_with_a_schema_is_submitted_again(sandbox):
    """A cut JSON text fits no schema; without retries the row is `None`."""
    arguments = {"structured_output": {"schema": SCHEMA}, "questions": QUESTIONS[:2]}

    assert texts(generate(2, **arguments)) == [None, None]
    assert all(json.loads(text)["count"] is not None for text in texts(generate(2, on_truncated="retry", **arguments)))


def test_retries_stay_within_the_budget(sandbox, caplog, monkeypatch):
    """Requests that fit the budget are submitted again; the others keep their cut text."""
    pytest.importorskip("genai_prices")
    monkeypatch.setattr(prices, "_PROVIDERS", [(re.compile(r"127\.0\.0\.1"), "openai")])
    rates = prices.find_rates("gpt-4o-mini", sandbox.base_url, 1_795_500_000.0)

    def bound(limit: int) -> float:
        usage = estimate_usage("/v1/chat/completions", {"messages": QUESTIONS[0], "max_tokens": limit})
        return float(rates.batch_dollars(usage))

    with caplog.at_level(logging.INFO):
        outputs = generate(3, budget=6 * bound(3) + 2.5 * bound(6), on_truncated="retry")

    assert all(texts(outputs))
    assert totals(sandbox)[0] == 6
    assert 0 < totals(sandbox)[1] < 6
    assert "not submitted again, since twice the limit may exceed the budget" in caplog.text


def test_unknown_treatment_is_refused():
    for value in ("again", None):
        with pytest.raises(ValidationError, match="on_truncated"):
            OpenAIBatchLLM(model="gpt-4o-mini", on_truncated=value)


def test_preflight_and_cut_answers_go_together(sandbox):
    assert all(texts(generate(6, on_truncated="retry", preflight=True)))
    with pytest.raises(RequestsFailedError):
        generate(6, on_truncated="retry", preflight=True, model="gpt-6-luna")
