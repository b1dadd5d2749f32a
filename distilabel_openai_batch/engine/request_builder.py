"""Requests of calls: the calls are encoded in columns, and become requests when they are submitted or looked at."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import TypeGuard, overload

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.requests import BodyTemplate, Request, TemplateBody, TextBodies
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.engine.answer_reuse import AnswerReuse
from distilabel_openai_batch.engine.calls import APICall, CallGroup, Calls
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.scratch import BodyStore
from distilabel_openai_batch.engine.settings import SessionSettings

# Bytes of a request's line besides the body, at most.
_MOST_LINE_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Column:
    """Encoded calls whose bodies differ in one field alone.

    Attributes:
        calls: the calls, at least one.
        like: a call with the model and the parameters of all.
        endpoint: the server's path of their endpoint.
        digests: the digests, `DIGEST_BYTES` bytes each.
        bodies: the body of each.
    """

    calls: Sequence[APICall]
    like: APICall
    endpoint: str
    digests: bytes
    bodies: Sequence[TemplateBody | bytes]


Columns = Sequence[Column | Failure]
"""Encoded calls in their order; a failure stands for a call that cannot be made, or whose body JSON cannot hold."""


def join_digests(columns: Columns) -> bytes:
    """Return the digests of encoded calls, `DIGEST_BYTES` bytes each."""
    return b"".join([column.digests for column in columns if isinstance(column, Column)])


class RequestBuilder:
    """Encode calls, and build their requests.

    Args:
        base_url: the address of the server.
        settings: the limits that requests have to keep.
        bodies: stores the bodies of the requests on the disk.
        traits: traits of the server's models.
        sizes: receives the largest answer that the requests can have.
        reuse: takes the answers of other scopes; `None` for no other scope.
    """

    def __init__(
        self,
        base_url: str,
        settings: SessionSettings,
        bodies: BodyStore,
        traits: LearnedTraits,
        sizes: AnswerSizes,
        reuse: AnswerReuse | None,
    ) -> None:
        self._base_url = base_url
        self._settings = settings
        self._bodies = bodies
        self._traits = traits
        self._sizes = sizes
        self._reuse = reuse
        self._template: BodyTemplate | None = None
        self._model = ""

    def can_build_later(self, columns: Columns) -> TypeGuard[Sequence[Column]]:
        """Return whether the encoded calls have all that their requests take; the calls may change until then."""
        return not (self._reuse and self._reuse.needs_digests) and Failure not in set(map(type, columns))

    def encode(self, calls: Calls) -> Columns:
        """Return the digests and the bodies of calls, which later changes of the calls do not reach."""
        return [column for call in calls for column in self._encode(call)]

    def build(self, columns: Columns, custom_ids: Sequence[str], retry_of: str = "") -> list[Request | Failure]:
        """Return the requests of calls.

        Args:
            columns: the encoded calls.
            custom_ids: the `custom_id` of each call that is no failure.
            retry_of: see `Request.retry_of`.

        Returns:
            For each call its request; a failure for a request that is too large.
        """
        names, start = [*custom_ids], 0
        built: list[Request | Failure] = []
        for column in columns:
            if isinstance(column, Failure):
                built.append(column)
                continue
            end = start + len(column.bodies)
            requests, longest = self._build_column(column, names[start:end], retry_of)
            start = end
            max_bytes = self._settings.max_bytes
            if longest + _MOST_LINE_BYTES <= max_bytes:
                built += requests
            else:
                built += [_too_large(each, max_bytes) if each.size > max_bytes else each for each in requests]
        return built

    def build_lazily(self, columns: Sequence[Column], custom_ids: Sequence[str]) -> Sequence[Request]:
        """Return the requests of calls, which are built when they are looked at.

        Args:
            columns: the encoded calls.
            custom_ids: the `custom_id` of each call.
        """
        return _LazyRequests(lambda column, names: self._build_column(column, names, "")[0], columns, custom_ids)

    def _encode(self, call: APICall | CallGroup | Failure) -> Iterator[Column | Failure]:
        if isinstance(call, Failure):
            yield call
        elif isinstance(call, APICall):
            yield self._encode_call(call)
        elif call:
            endpoint = self._settings.endpoint(call.like.endpoint)
            try:
                column = Column(call, call.like, endpoint, *call.template.fill(call.values, self._base_url, endpoint))
            except ValueError:
                yield from map(self._encode_call, call)
            else:
                yield column

    def _encode_call(self, call: APICall) -> Column | Failure:
        endpoint = self._settings.endpoint(call.endpoint)
        try:
            body, digest = call.build(self._base_url, endpoint)
        except ValueError as error:
            return Failure(str(error))
        return Column([call], call, endpoint, bytes.fromhex(digest), [body])

    def _build_column(self, column: Column, custom_ids: Sequence[str], retry_of: str) -> tuple[list[Request], int]:
        """Return the requests of a column, and the bytes of their largest body."""
        like, endpoint, bodies = column.like, column.endpoint, column.bodies
        # Bodies of one template have one model, and answers of one size.
        if like.template is None or like.template is not self._template:
            self._template, self._model = like.template, sys.intern(str(like.body["model"]))
            self._sizes.add(like.body)
        model, has_default_limit = self._model, like.has_default_limit
        if self._reuse and self._reuse.needs_digests:
            for custom_id, call in zip(custom_ids, column.calls, strict=True):
                self._reuse.add_digests(custom_id, call)
        endpoints: Iterable[str] = repeat(endpoint)
        if self._traits.refused:
            fitted = [
                self._traits.fit_call(model, endpoint, bytes(body), has_default_limit=has_default_limit)
                for body in bodies
            ]
            endpoints, bodies = [path for path, _ in fitted], [body for _, body in fitted]
        lengths = bodies.lengths if isinstance(bodies, TextBodies) else [*map(len, bodies)]
        stored = [self._bodies.add(body) if isinstance(body, bytes) else body for body in bodies]
        built = map(Request, custom_ids, endpoints, repeat(model), stored, repeat(has_default_limit), repeat(retry_of))
        return [*built], max(lengths)


class _LazyRequests(Sequence[Request]):
    """Requests that are built when they are looked at, those of a column together.

    Args:
        build: returns the requests of a column, given their `custom_id`s.
        columns: the encoded calls.
        custom_ids: the `custom_id` of each call.
    """

    def __init__(
        self,
        build: Callable[[Column, Sequence[str]], Sequence[Request]],
        columns: Sequence[Column],
        custom_ids: Sequence[str],
    ) -> None:
        self._build = build
        self._columns = columns
        self._custom_ids = custom_ids
        self._starts = [*accumulate([len(column.bodies) for column in columns], initial=0)]
        self._built: dict[int, Sequence[Request]] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Request: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...

    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        places = range(len(self))[index]
        if not isinstance(places, int):
            return [self[place] for place in places]
        number = bisect_right(self._starts, places) - 1
        start, end = self._starts[number : number + 2]
        if number not in self._built:
            self._built[number] = self._build(self._columns[number], [*self._custom_ids[start:end]])
        return self._built[number][places - start]


def _too_large(request: Request, max_bytes: int) -> Failure:
    return Failure(f"The request is too large: {request.size:,} bytes; an input file holds {max_bytes:,}")
