"""Requests, their `custom_id`s, and the shards that become input files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, pairwise, repeat, zip_longest
from operator import attrgetter, itemgetter
from typing import Any, Protocol, TypeVar, overload
from uuid import uuid4

import msgspec
import orjson

from distilabel_openai_batch.api.encoding import encode_body, encode_canonical_json, encode_json

_T = TypeVar("_T")

_LINE = b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n'
_LINE_BYTES = len(_LINE % (b"", b"", b""))

DIGEST_BYTES = 16
"""Bytes of a request's digest."""

# SQLite's integers have room for occurrence numbers of 18 digits.
_CUSTOM_ID = re.compile(r"[0-9a-f]{32}-[0-9]{1,18}")

_CONTENT = itemgetter("content")
_CUSTOM_ID_OF, _BODY_OF = attrgetter("custom_id"), attrgetter("body")

# Digits of an integer that may exceed 64 bits.
_LARGE_NUMBER = re.compile(rb"[0-9]{19}")


class EncodedBody(Protocol):
    """JSON of a body, in memory or on the disk: `len` gives its bytes, and `bytes` loads it."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...


# A million requests are created: a `Struct` takes a quarter of a dataclass's time, and the garbage collector skips it.
class Request(msgspec.Struct, gc=False):
    """A request, which becomes one line of an input file.

    Attributes:
        custom_id: the id that ties the result to the request, at most 64 ASCII characters.
        endpoint: the path of the endpoint (`"/v1/chat/completions"`).
        model: the model's name; all requests of an input file have the same model.
        body: the body as JSON.
        has_default_limit: whether the body's limit of the answer's tokens is distilabel's default, so that a server's
            refusal may change the limit.
        retry_of: the kind of the outcome that the request retries: "cut answer", "unfit answer" or "failed request";
            empty for the first request of a row.
    """

    custom_id: str
    endpoint: str
    model: str
    body: EncodedBody
    has_default_limit: bool = False
    retry_of: str = ""

    @property
    def size(self) -> int:
        """Bytes of the request's line."""
        return _LINE_BYTES + len(self.custom_id) + len(self.endpoint) + len(self.body)

    def line(self, endpoint: str | None = None) -> bytes:
        """Return the request's line of an input file, line feed included.

        Args:
            endpoint: the server's name of the endpoint; `None` for the request's.
        """
        return _LINE % (self.custom_id.encode(), (endpoint or self.endpoint).encode(), bytes(self.body))


def total_size(requests: Sequence[Request]) -> int:
    """Return the bytes of the lines of requests of one endpoint, in a third of the time that their `size`s take."""
    fixed = (_LINE_BYTES + len(requests[0].endpoint)) * len(requests)
    return fixed + sum(map(len, map(_CUSTOM_ID_OF, requests))) + sum(map(len, map(_BODY_OF, requests)))


def digest_body(base_url: str, endpoint: str, body: bytes) -> str:
    """Return a digest of a request that does not depend on the order of keys in its body.

    Args:
        base_url: the server's address.
        endpoint: the path of the endpoint.
        body: the body as JSON.

    Returns:
        32 hexadecimal digits. A digest and an occurrence number form a `custom_id` within the limit of every server
        (64 characters, Together's).
    """
    # orjson parses an integer above 64 bits as a float, which other integers share → parse it with `json`.
    value = json.loads(body) if _LARGE_NUMBER.search(body) else orjson.loads(body)
    hasher = _begin_digest(base_url, endpoint)
    hasher.update(encode_canonical_json(value))
    return hasher.hexdigest()


def _begin_digest(base_url: str, endpoint: str) -> blake2b:
    """Return a hasher that has everything of a digest but the canonical JSON."""
    return blake2b(b"%b\0%b\0" % (base_url.encode(), endpoint.encode()), digest_size=DIGEST_BYTES)


class BodyTemplate:
    """A pre-serialised request body in which one field varies.

    Args:
        body: a body; its value of the field does not matter.
        name: the name of the field.
        identity: the body whose digest identifies the request; `None` for `body` itself.
        roles: the roles of a chat's messages, which have a role and a text each; `None` for another field.

    Attributes:
        field: the name of the field.
    """

    __slots__ = ("_address", "_encoded", "_ends", "_hasher", "_length", "_roles", "_start", "field")

    def __init__(
        self,
        body: Mapping[str, Any],
        name: str,
        identity: Mapping[str, Any] | None = None,
        roles: Sequence[str] | None = None,
    ) -> None:
        marks = [uuid4().hex for _ in roles or ("",)]
        value: object = marks[0]
        if roles:
            value = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        self.field = name
        self._roles = roles
        # The JSON before, between and behind the texts.
        self._encoded = _split_at(marks, encode_body({**body, name: value}))
        # The canonical JSON before the first text, and the JSON behind each text.
        self._start, *self._ends = _split_at(marks, encode_canonical_json({**(identity or body), name: value}))
        self._length = sum(map(len, self._encoded))
        self._address: tuple[str, str] | None = None
        self._hasher = blake2b()

    def fill(self, values: Sequence[Any], base_url: str, endpoint: str) -> tuple[bytes, TextBodies | list[bytes]]:
        """Fill in the field of several bodies.

        Args:
            values: the value of the field in each body; chats with the template's roles, if the template has any.
            base_url: see the function `digest_body`, as `endpoint`.
            endpoint: the path of the endpoint.

        Returns:
            The digests of the bodies' identities, `DIGEST_BYTES` bytes each, and the bodies, whose JSON equals that of
            the function `encode_body`.

        Raises:
            ValueError: JSON cannot hold a value.
        """
        begun = self._begin_digest(base_url, endpoint)
        if self._roles or set(map(type, values)) <= {str}:
            try:
                return self._fill_texts(values, begun, orjson.dumps)
            except TypeError:
                # orjson takes no lone surrogate: `encode_json` raises the error that tells so.
                return self._fill_texts(values, begun, encode_json)
        [end] = self._ends
        digests = []
        for value in values:
            hasher = begun.copy()
            hasher.update(encode_canonical_json(value) + end)
            digests.append(hasher.digest())
        return b"".join(digests), [_join(self._encoded, [encode_json(value)]) for value in values]

    def _fill_texts(
        self, values: Sequence[Any], begun: blake2b, encode: Callable[[str], bytes]
    ) -> tuple[bytes, TextBodies]:
        """Fill in texts, or the texts of chats. The JSON of a text is canonical."""
        digests, lengths = [], []
        length = self._length
        if len(self._ends) == 1:
            [end] = self._ends
            texts = [message["content"] for [message] in values] if self._roles else [*values]
            for text in texts:
                encoded = encode(text)
                hasher = begun.copy()
                hasher.update(encoded + end)
                digests.append(hasher.digest())
                lengths.append(length + len(encoded))
            return b"".join(digests), TextBodies(self, texts, lengths)
        chats = [tuple(map(_CONTENT, chat)) for chat in values]
        for chat in chats:
            encoded_texts = [*map(encode, chat)]
            hasher = begun.copy()
            hasher.update(b"".join(chain.from_iterable(zip(encoded_texts, self._ends, strict=True))))
            digests.append(hasher.digest())
            lengths.append(length + sum(map(len, encoded_texts)))
        return b"".join(digests), TextBodies(self, chats, lengths)

    def encode(self, texts: str | Sequence[str]) -> bytes:
        """Return the JSON of a body with a text in the field, or with these texts in the messages."""
        if isinstance(texts, str):
            return _join(self._encoded, [encode_json(texts)])
        return _join(self._encoded, [*map(encode_json, texts)])

    def _begin_digest(self, base_url: str, endpoint: str) -> blake2b:
        """Return a hasher that has everything of a digest before the field's value."""
        if (base_url, endpoint) != self._address:
            self._address, self._hasher = (base_url, endpoint), _begin_digest(base_url, endpoint)
            self._hasher.update(self._start)
        return self._hasher


def _join(pieces: Sequence[bytes], values: Sequence[bytes]) -> bytes:
    """Return the pieces with a value between each two."""
    if len(values) == 1:
        return b"".join((pieces[0], values[0], pieces[1]))
    return b"".join(part for pair in zip_longest(pieces, values, fillvalue=b"") for part in pair)


def _split_at(marks: Sequence[str], text: bytes) -> list[bytes]:
    """Return the pieces between marks, which are strings of a JSON text, in this order."""
    pieces = []
    for mark in marks:
        before, text = text.split(b'"%b"' % mark.encode())
        pieces.append(before)
    return [*pieces, text]


class TemplateBody(msgspec.Struct, gc=False, eq=False):
    """A body that is encoded when it is needed: `len` and `bytes` return those of its JSON.

    The texts take no memory, as the caller has them until the answer is there, and cannot change meanwhile, as the
    caller's lists and dictionaries can.

    Attributes:
        template: the template.
        texts: the text of the template's field, or the texts of its messages.
        length: bytes of the JSON.
    """

    template: BodyTemplate
    texts: str | tuple[str, ...]
    length: int

    def __len__(self) -> int:
        return self.length

    def __bytes__(self) -> bytes:
        return self.template.encode(self.texts)


class TextBodies(Sequence[TemplateBody]):
    """Bodies of one template, which become objects when they are needed.

    Args:
        template: the template.
        texts: the texts of each body, as a `TemplateBody` has them.
        lengths: bytes of the JSON of each body.

    Attributes:
        lengths: as given.
    """

    __slots__ = ("_template", "_texts", "lengths")

    def __init__(self, template: BodyTemplate, texts: Sequence[str | tuple[str, ...]], lengths: Sequence[int]) -> None:
        self._template = template
        self._texts = texts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[TemplateBody]:
        return map(TemplateBody, repeat(self._template), self._texts, self.lengths)

    @overload
    def __getitem__(self, index: int) -> TemplateBody: ...

    @overload
    def __getitem__(self, index: slice) -> TextBodies: ...

    def __getitem__(self, index: int | slice) -> TemplateBody | TextBodies:
        if isinstance(index, slice):
            return TextBodies(self._template, self._texts[index], self.lengths[index])
        return TemplateBody(self._template, self._texts[index], self.lengths[index])


def build_custom_id(digest: str, number: int) -> str:
    """Build a `custom_id` from a request's digest and its occurrence number."""
    return f"{digest}-{number}"


def is_custom_id(text: str) -> bool:
    """Return whether a text has the form of `build_custom_id`'s result."""
    return _CUSTOM_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Shard:
    """Requests of one endpoint and one model that go into one input file.

    Attributes:
        requests: at least one request.
        size: bytes of the input file.
    """

    requests: list[Request]
    size: int

    @classmethod
    def of(cls, requests: list[Request]) -> Shard:
        """Create a shard of requests."""
        return cls(requests, total_size(requests))

    @property
    def endpoint(self) -> str:
        """Return the path of all its requests."""
        return self.requests[0].endpoint

    def release(self) -> None:
        """Drop the requests: their memory is free although others still refer to the shard."""
        self.requests.clear()

    def split_by_ids(self, custom_ids: Set[str]) -> tuple[Shard | None, Shard | None]:
        """Split the shard into the requests with the given ids and the other requests; `None` for an empty part."""
        parts: tuple[list[Request], list[Request]] = [], []
        for request in self.requests:
            parts[request.custom_id not in custom_ids].append(request)
        if not parts[1]:
            return self, None
        first, second = (Shard.of(part) if part else None for part in parts)
        return first, second

    def split(self, size: int) -> list[Shard]:
        """Split the shard into shards with about the same number of requests.

        Args:
            size: the approximate number of requests in each shard.
        """
        count = max(1, round(len(self.requests) / size))
        edges = [len(self.requests) * part // count for part in range(count + 1)]
        return [Shard.of(self.requests[start:end]) for start, end in pairwise(edges)]


def sample_evenly(requests: Sequence[_T], size: int) -> list[_T]:
    """Return up to `size` requests or `custom_id`s, evenly spread over all of them, in their order."""
    count = min(size, len(requests))
    return [requests[index * len(requests) // count] for index in range(count)]


def cut_shards(requests: Iterable[Request], max_requests: int, max_bytes: int) -> Iterator[Shard]:
    """Cut requests into shards that each fit an input file.

    Args:
        requests: requests of any endpoints and models; those of one endpoint and model keep their order.
        max_requests: maximum number of requests in a shard.
        max_bytes: maximum of bytes in a shard's input file. A request that is larger gets a shard of its own.

    Yields:
        The smallest number of shards that the limits and the order allow.
    """
    open_shards: dict[tuple[str, str], tuple[list[Request], int]] = {}
    for request in requests:
        key = (request.endpoint, request.model)
        shard, size = open_shards.get(key, ([], 0))
        length = request.size
        if shard and (len(shard) == max_requests or size + length > max_bytes):
            yield Shard(shard, size)
            shard, size = [], 0
        shard.append(request)
        open_shards[key] = shard, size + length
    for shard, size in open_shards.values():
        yield Shard(shard, size)
