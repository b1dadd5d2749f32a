"""Calls of endpoints, and the numbers that tell equal calls apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.outcomes import Outcome
from distilabel_openai_batch.api.requests import BodyTemplate, build_custom_id, digest_body
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.structured_output.schema import StructuredOutput

outcomes_seen: ContextVar[list[list[Outcome]] | None] = ContextVar("outcomes_seen", default=None)
"""Collects what each of a task's calls of `Session.ask` returned, for whoever wants to know why a row has no answer."""


@dataclass(slots=True)
class Call:
    """One call of an endpoint.

    Attributes:
        endpoint: its path (`"/v1/chat/completions"`).
        body: what the SDK would have sent there.
        wanted: what the answer has to look like, if anything.
        template: of the body, where there are others like it.
    """

    endpoint: str
    body: Mapping[str, object]
    wanted: StructuredOutput | None = None
    template: BodyTemplate | None = None

    def encode(self) -> bytes:
        """The body as JSON.

        Raises:
            ValueError: it holds something that JSON cannot, with the reason.
        """
        return self.template.encode(self.body) if self.template else encode_body(self.body)

    def digest(self, base_url: str, endpoint: str, body: bytes) -> str:
        """What tells the question from others.

        Args:
            base_url: the server that is asked.
            endpoint: what that calls the endpoint.
            body: as `encode` made it.
        """
        if self.template:
            return self.template.digest(base_url, endpoint, self.body)
        return digest_body(base_url, endpoint, body)


class _Scope:
    """What a process remembers of a scope for as long as it lives.

    The same question asked twice in one run is two questions, which an occurrence number tells apart; a later run, in
    another process, begins again with the first, and so finds the answers.
    """

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._next: dict[str, int] = {}
        self._given_back: dict[str, list[str]] = {}
        self.was_looked_for = False
        """On the server, for jobs that the ledger does not know."""

    def custom_id(self, digest: str, first: Callable[[], int]) -> str:
        """The `custom_id` for one more time that a question is asked.

        Args:
            digest: the question.
            first: the number that a question begins with.
        """
        if given_back := self._given_back.get(digest):
            return given_back.pop()
        number = self._next[digest] if digest in self._next else first()
        while (custom_id := build_custom_id(digest, number)) in self._asked:
            # Few are asked twice: only of these it is noted how often.
            number += 1
            self._next[digest] = number + 1
        self._asked.add(custom_id)
        return custom_id

    def give_back(self, custom_id: str) -> None:
        """A request got no outcome: whoever asks the question next is to have its answer."""
        self._given_back.setdefault(custom_id.partition("-")[0], []).append(custom_id)


_scopes: defaultdict[tuple[Path, ScopeName], _Scope] = defaultdict(_Scope)
