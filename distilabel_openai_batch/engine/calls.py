"""Calls of endpoints, the `custom_id`s that tell equal calls apart, and the log of their outcomes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, overload

from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.outcomes import Failure, Outcome
from distilabel_openai_batch.api.requests import DIGEST_BYTES, BodyTemplate, TemplateBody, build_custom_id, digest_body
from distilabel_openai_batch.engine.compact_ids import DigestSet
from distilabel_openai_batch.ledger.packs import FirstOccurrences
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.structured_output.schema import StructuredOutput


@dataclass(slots=True)
class APICall:
    """Call of an endpoint.

    Attributes:
        endpoint: the path of the endpoint (`"/v1/chat/completions"`).
        body: the JSON object that the SDK would have sent.
        schema: the structured output that the answer must fit; `None` for any answer.
        template: the template of bodies that differ from this one in one field; `None` for a body of its own.
        identity: the body whose digest identifies the request in the ledger, if servers need other parameters than the
            request had in earlier releases; `None` for `body` itself.
        has_default_limit: whether the body's limit of the answer's tokens is distilabel's default, and not the user's
            choice.
    """

    endpoint: str
    body: Mapping[str, object]
    schema: StructuredOutput | None = None
    template: BodyTemplate | None = None
    identity: Mapping[str, object] | None = None
    has_default_limit: bool = False

    def with_messages(self, body: Mapping[str, object]) -> APICall:
        """Return a call with a body that differs from this one in its chat and in `n`, and with a like identity."""
        changed = {name: body[name] for name in ("messages", "input", "n") if name in body}
        identity = {**self.identity, **changed} if self.identity else None
        return APICall(self.endpoint, body, identity=identity, has_default_limit=self.has_default_limit)

    def build(self, base_url: str, endpoint: str) -> tuple[TemplateBody | bytes, str]:
        """Return the body and the digest that identifies the request, see the function `digest_body`.

        Args:
            base_url: the address of the server.
            endpoint: the server's path of the endpoint.

        Raises:
            ValueError: the body holds a value that JSON cannot express.
        """
        if self.template:
            digest, [body] = self.template.fill([self.body[self.template.field]], base_url, endpoint)
            return body, digest.hex()
        encoded = encode_body(self.body)
        return encoded, digest_body(base_url, endpoint, encode_body(self.identity) if self.identity else encoded)


class CallGroup(Sequence[APICall]):
    """Calls that differ in one field of their bodies alone, in the memory of the field's values.

    Args:
        like: a call with a template and without a schema; its value of the template's field does not matter.
        values: the value of the field in each body.

    Attributes:
        like: as given.
        template: the template of the bodies.
        values: as given.
    """

    __slots__ = ("like", "template", "values")

    def __init__(self, like: APICall, values: Sequence[Any]) -> None:
        if like.template is None or like.schema:
            raise ValueError("calls of a group have a template, and no schema")
        self.like = like
        self.template = like.template
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> APICall: ...

    @overload
    def __getitem__(self, index: slice) -> CallGroup: ...

    def __getitem__(self, index: int | slice) -> APICall | CallGroup:
        if isinstance(index, slice):
            return CallGroup(self.like, self.values[index])
        like, template = self.like, self.template
        body = {**like.body, template.field: self.values[index]}
        return APICall(like.endpoint, body, template=template, has_default_limit=like.has_default_limit)


Calls = Iterable[APICall | CallGroup | Failure]
"""Calls in their order; a failure stands for a call that cannot be made."""


def each_call(calls: Calls) -> Iterator[APICall | Failure]:
    """Yield the calls one by one."""
    for call in calls:
        if isinstance(call, CallGroup):
            yield from call
        else:
            yield call


_active_log: ContextVar[CallLog | None] = ContextVar("active_log", default=None)


class CallLog:
    """Outcomes of the calls that one row group, or one part of a call, made.

    The runner of row groups activates a log around a Task's `process`, since a Task passes nothing through to its LLM,
    and reads it when the row group is done. The innermost active log of the current task receives the outcomes.

    Attributes:
        calls: for each call of `Session.submit`, in order, its outcomes.
        has_generation: whether any call of an LLM returned a generation; `None` if no LLM was called.
    """

    __slots__ = ("calls", "has_generation")

    def __init__(self) -> None:
        self.calls: list[Sequence[Outcome]] = []
        self.has_generation: bool | None = None

    @contextmanager
    def activate(self) -> Iterator[CallLog]:
        """Receive the outcomes of all calls made in this context."""
        token = _active_log.set(self)
        try:
            yield self
        finally:
            _active_log.reset(token)

    @staticmethod
    def active() -> CallLog | None:
        """Return the log that receives outcomes here; `None` if no log is active."""
        return _active_log.get()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Record the outcomes of one call."""
        self.calls.append(outcomes)

    @property
    def outcomes(self) -> list[Outcome]:
        """Outcomes of all calls in one list."""
        return [outcome for outcomes in self.calls for outcome in outcomes]


class ScopeMemory:
    """Memory of a run for one scope: the `custom_id`s in use.

    Equal requests of one run are told apart by an occurrence number. A later run counts from 0 again, and so finds the
    answers of an earlier run in the same order. Several threads may use one memory.

    Attributes:
        server_searched: whether the server was searched for batches that the ledger does not know.
        has_compared: whether the first requests were compared with the answers of earlier runs.
        began_at: the moment of the first session of the process, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.server_searched = False
        self.has_compared = False
        self.began_at = time.time()
        self._used = DigestSet()
        # Few requests occur twice, or begin with another number than 0 → their numbers take little memory.
        self._next_numbers: dict[str, int] = {}
        self._released: dict[str, list[str]] = {}
        self._lock = Lock()

    def acquire_custom_ids(self, digests: bytes, first_number: Callable[[str], int] | None = None) -> Sequence[str]:
        """Return the `custom_id`s of the next occurrences of requests.

        Args:
            digests: the digests of the requests, `DIGEST_BYTES` bytes each; at least one.
            first_number: returns the number of the first occurrence of a digest, given in hexadecimal digits; `None`
                for 0.

        Returns:
            The `custom_id` of each request; `FirstOccurrences` if all of them begin with the number 0.
        """
        with self._lock:
            known = self._used.add(digests)
            if not known and first_number is None:
                return FirstOccurrences(digests)
            return [
                build_custom_id(digest, 0)
                if index not in known and first_number is None
                else self._acquire(digest, first_number, is_known=index in known)
                for index, digest in enumerate(digests.hex("\n", DIGEST_BYTES).split("\n"))
            ]

    def _acquire(self, digest: str, first_number: Callable[[str], int] | None, *, is_known: bool) -> str:
        if released := self._released.get(digest):
            return released.pop()
        number = self._next_numbers.get(digest)
        if number is None:
            number = max(first_number(digest) if first_number else 0, int(is_known))
        if number or is_known:
            self._next_numbers[digest] = number + 1
        return build_custom_id(digest, number)

    def release_custom_id(self, custom_id: str) -> None:
        """Give a `custom_id` without an outcome to the next equal request."""
        with self._lock:
            self._released.setdefault(custom_id.partition("-")[0], []).append(custom_id)


scope_memories: defaultdict[tuple[Path, ScopeName], ScopeMemory] = defaultdict(ScopeMemory)
"""Memories of this process, by the ledger's directory and the scope. Runs of a `SessionPool` count for themselves, and
share the search of the server."""
