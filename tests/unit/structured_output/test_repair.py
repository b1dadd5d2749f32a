"""Retries of the choices that do not fit the schema."""

from __future__ import annotations

from typing import Any

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.structured_output.repair import Exchange
from distilabel_openai_batch.structured_output.schema import read
from tests.support.schemas import BODY, COUNT, choice


def answer(*choices: dict[str, Any], tokens: int = 10) -> Answer:
    return Answer.of({"choices": list(choices), "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})


def contents(outcome: Answer | Failure) -> list[str | None]:
    assert isinstance(outcome, Answer)
    return [each["message"]["content"] for each in outcome.body["choices"]]


def test_only_choices_that_do_not_fit_are_retried():
    """Each such choice is a request of its own; the tokens of all requests are added up."""
    exchange = Exchange(read({"schema": COUNT}), BODY, answer(choice("a"), choice('{"count": 1}'), choice("c")))

    assert [place for place, _ in exchange.due()] == [0, 2]
    exchange.take(0, answer(choice('{"count": 0}'), tokens=20))
    exchange.take(2, answer(choice("still not"), tokens=40))

    assert exchange.due() == []
    assert contents(exchange.outcome) == ['{"count":0}', '{"count":1}', None]
    assert exchange.outcome.tokens == (70, 3)
    assert exchange.failure is not None
    assert exchange.failure.message.startswith("1 of 3 generations: The answer does not fit the schema: it is not JSON")


def test_answer_without_a_fitting_choice_is_a_failure():
    """The failure has the billed tokens, and names the failure of the retry beside the reason."""
    exchange = Exchange(read({"schema": COUNT}), BODY, answer(choice("a")))
    exchange.take(0, Failure("Too long.", 400))

    assert exchange.outcome == exchange.failure
    assert exchange.outcome.tokens == (10, 1)
    assert "it is not JSON" in str(exchange.outcome)
    assert "Asking again failed: Too long." in str(exchange.outcome)


@pytest.mark.parametrize("body", [{"choices": None}, {"object": "list"}, {"choices": []}], ids=str)
def test_answer_without_choices_stays_unchanged(body):
    """The reader of the answer reports that the answer is no completion."""
    exchange = Exchange(read({"schema": COUNT}), BODY, Answer.of(body))

    assert (exchange.due(), exchange.failure, exchange.outcome) == ([], None, Answer.of(body))
