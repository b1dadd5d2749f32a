"""Tests of `structured_output.repair`."""

from __future__ import annotations

from typing import Any

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.repair import Repair
from tests.support.schemas import BODY, COUNT, choice


def answer(*choices: dict[str, Any], tokens: int = 10) -> Answer:
    return Answer.of({"choices": list(choices), "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})


def contents(outcome: Answer | Failure) -> list[str | None]:
    assert isinstance(outcome, Answer)
    return [choice["message"]["content"] for choice in outcome.body["choices"]]


def test_only_choices_that_do_not_fit_are_retried():
    """Each such choice is a request of its own; the tokens of all requests are added up."""
    repair = Repair(
        parse_structured_output({"schema": COUNT}), BODY, answer(choice("a"), choice('{"count": 1}'), choice("c"))
    )

    assert [index for index, _ in repair.retries()] == [0, 2]
    repair.add_outcome(0, answer(choice('{"count": 0}'), tokens=20))
    repair.add_outcome(2, answer(choice("still not"), tokens=40))

    assert repair.retries() == []
    assert contents(repair.outcome) == ['{"count":0}', '{"count":1}', None]
    assert repair.outcome.tokens == (70, 3)
    assert repair.failure is not None
    assert repair.failure.message.startswith("1 of 3 generations: The answer does not fit the schema: it is not JSON")


def test_answer_without_a_fitting_choice_is_a_failure():
    """The failure has the billed tokens, and names the failure of the retry beside the reason."""
    repair = Repair(parse_structured_output({"schema": COUNT}), BODY, answer(choice("a")))
    repair.add_outcome(0, Failure("Too long.", 400))

    assert repair.outcome == repair.failure
    assert repair.outcome.tokens == (10, 1)
    assert "it is not JSON" in str(repair.outcome)
    assert "The retry failed: Too long." in str(repair.outcome)


@pytest.mark.parametrize("body", [{"choices": None}, {"object": "list"}, {"choices": []}], ids=str)
def test_answer_without_choices_stays_unchanged(body):
    """The reader of the answer reports that the answer is no completion."""
    repair = Repair(parse_structured_output({"schema": COUNT}), BODY, Answer.of(body))

    assert (repair.retries(), repair.failure, repair.outcome) == ([], None, Answer.of(body))
