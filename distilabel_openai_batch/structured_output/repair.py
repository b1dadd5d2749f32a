"""Repair of answers that do not fit their schema: each unfit choice is requested again with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distilabel_openai_batch.api.failure_codes import MALFORMED_RESULT
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.structured_output.schema import Rejection, StructuredOutput, message_of


class Repair:
    """Repair of one answer: the requests that remain to be sent, and the outcome so far.

    Args:
        schema: the structured output that each choice must fit.
        body: the body of the first request.
        answer: the answer to the first request.
    """

    def __init__(self, schema: StructuredOutput, body: Mapping[str, Any], answer: Answer) -> None:
        self._schema = schema
        self._answer = answer
        self._tokens = answer.tokens
        self._has_retry_answers = False
        self._failures: dict[int, Failure] = {}
        self._retry_bodies: dict[int, dict[str, Any]] = {}
        choices = answer.body.get("choices")
        self._choices = list(choices) if isinstance(choices, list) else []
        self._retries_left = dict.fromkeys(range(len(self._choices)), schema.max_retries)
        for index, choice in enumerate(self._choices):
            self._check(index, choice, body)

    def retries(self) -> list[tuple[int, dict[str, Any]]]:
        """Return the requests to send next, as pairs of a choice's index and a body."""
        return sorted(self._retry_bodies.items())

    def add_outcome(self, index: int, outcome: Outcome) -> None:
        """Add the outcome of a retry.

        Args:
            index: the index of the choice.
            outcome: the answer or failure of the request for that choice.
        """
        body = self._retry_bodies.pop(index)
        if isinstance(outcome, Failure):
            first = self._failures[index]
            self._failures[index] = Failure(f"{first.message}. The retry failed: {outcome}", code=first.code)
            return
        self._has_retry_answers = True
        self._tokens = (self._tokens[0] + outcome.tokens[0], self._tokens[1] + outcome.tokens[1])
        choices = outcome.body.get("choices")
        self._check(index, choices[0] if isinstance(choices, list) and choices else None, body)

    @property
    def choices(self) -> int:
        """Number of choices."""
        return len(self._choices)

    def is_fit(self, index: int) -> bool:
        """Return whether a choice fits the schema now.

        Args:
            index: the index of the choice.
        """
        return index not in self._failures

    @property
    def failure(self) -> Failure | None:
        """Reason why a choice is unusable, with the number of unusable choices; `None` if all fit."""
        if not self._failures:
            return None
        first = self._failures[min(self._failures)]
        message = first.message
        if len(self._choices) > 1:
            message = f"{len(self._failures)} of {len(self._choices)} generations: {message}"
        return Failure(message, code=first.code, tokens=self._tokens)

    @property
    def outcome(self) -> Outcome:
        """Answer with the fitting choices, unusable ones without content; a failure if all choices are unusable."""
        if self._failures and len(self._failures) == len(self._choices):
            assert self.failure is not None
            return self.failure
        body = {**self._answer.body}
        if self._choices:
            body["choices"] = self._choices
        if self._has_retry_answers:
            tokens_in, tokens_out = self._tokens
            counts = {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            }
            usage = body.get("usage")
            body["usage"] = {**(usage if isinstance(usage, dict) else {}), **counts}
        try:
            return Answer.of(body, dict(self._failures))
        except (ValueError, RecursionError) as error:
            return Failure(
                f"The answer cannot be written as JSON: {error!r}", code=MALFORMED_RESULT, tokens=self._tokens
            )

    def _check(self, index: int, choice: object, body: Mapping[str, Any]) -> None:
        """Record a choice: its JSON text, or its failure and the body of its retry."""
        checked = self._schema.check(choice)
        content = None
        if isinstance(checked, Rejection):
            self._failures[index] = checked.failure
            if checked.is_repairable and self._retries_left[index] > 0:
                self._retries_left[index] -= 1
                self._retry_bodies[index] = self._schema.retry_body(body, choice, checked.failure.message)
        else:
            self._failures.pop(index, None)
            content = checked
        fields = choice if isinstance(choice, dict) else {}
        self._choices[index] = {**fields, "message": {**message_of(choice), "content": content}}
