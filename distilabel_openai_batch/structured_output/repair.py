"""The conversation in which an answer that does not fit its schema is asked for again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.structured_output.schema import Rejection, StructuredOutput, _message


class Exchange:
    """The asking, and asking again, of one request until each of its choices fits.

    Args:
        wanted: what they have to look like.
        body: of the request.
        answer: to it.
    """

    def __init__(self, wanted: StructuredOutput, body: Mapping[str, Any], answer: Answer) -> None:
        self._wanted = wanted
        self._answer = answer
        self._tokens = answer.tokens
        self._was_asked_again = False
        self._failures: dict[int, Failure] = {}
        self._due: dict[int, dict[str, Any]] = {}
        choices = answer.body.get("choices")
        self._choices = list(choices) if isinstance(choices, list) else []
        self._left = dict.fromkeys(range(len(self._choices)), wanted.max_retries)
        for place, choice in enumerate(self._choices):
            self._read(place, choice, body)

    def due(self) -> list[tuple[int, dict[str, Any]]]:
        """What is to be asked next: the choice, and the body of the request."""
        return sorted(self._due.items())

    def take(self, place: int, outcome: Outcome) -> None:
        """A choice was asked again.

        Args:
            place: which.
            outcome: what came of it.
        """
        body = self._due.pop(place)
        if isinstance(outcome, Failure):
            before = self._failures[place]
            self._failures[place] = Failure(f"{before.message}. Asking again failed: {outcome}", code=before.code)
            return
        self._was_asked_again = True
        self._tokens = (self._tokens[0] + outcome.tokens[0], self._tokens[1] + outcome.tokens[1])
        choices = outcome.body.get("choices")
        self._read(place, choices[0] if isinstance(choices, list) and choices else None, body)

    @property
    def failure(self) -> Failure | None:
        """Why some of its choices, or all, have no answer; `None` where each has one."""
        if not self._failures:
            return None
        first = self._failures[min(self._failures)]
        message = first.message
        if len(self._choices) > 1:
            message = f"{len(self._failures)} of {len(self._choices)} generations: {message}"
        return Failure(message, code=first.code, tokens=self._tokens)

    @property
    def outcome(self) -> Outcome:
        """An answer whose choices say what fits, or nothing; a failure where all say nothing."""
        if self._failures and len(self._failures) == len(self._choices):
            assert self.failure is not None
            return self.failure
        body = {**self._answer.body}
        if self._choices:
            body["choices"] = self._choices
        if self._was_asked_again:
            tokens_in, tokens_out = self._tokens
            counts = {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            }
            body["usage"] = {**(body.get("usage") or {}), **counts}
        return Answer.of(body, dict(self._failures))

    def _read(self, place: int, choice: object, body: Mapping[str, Any]) -> None:
        read = self._wanted.read(choice)
        content = None
        if isinstance(read, Rejection):
            self._failures[place] = read.failure
            if read.helps and self._left[place] > 0:
                self._left[place] -= 1
                self._due[place] = self._wanted.asked_again(body, choice, read.failure.message)
        else:
            self._failures.pop(place, None)
            content = read
        kept = choice if isinstance(choice, dict) else {}
        self._choices[place] = {**kept, "message": {**_message(choice), "content": content}}
