"""Requests, their `custom_id`s, and the shards that fill input files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Protocol
from uuid import uuid4

import orjson

from distilabel_openai_batch.api.encoding import encode_body, encode_canonical_json, encode_json

_LINE = b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n'


_LINE_BYTES = len(_LINE % (b"", b"", b""))


class Text(Protocol):
    """What `bytes` makes bytes of, and is as long as these."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request of an input file.

    Attributes:
        custom_id: what ties its result to it, at most 64 ASCII characters.
        endpoint: the path that it goes to (`"/v1/chat/completions"`).
        model: the model that is asked; one file has one.
        body: its body as JSON, or where that is kept.
    """

    custom_id: str
    endpoint: str
    model: str
    body: Text

    @property
    def size(self) -> int:
        """Bytes of its line."""
        return _LINE_BYTES + len(self.custom_id) + len(self.endpoint) + len(self.body)

    def line(self) -> bytes:
        """The request as a line of an input file, line feed included."""
        return _LINE % (self.custom_id.encode(), self.endpoint.encode(), bytes(self.body))


_LARGE_NUMBER = re.compile(rb"[0-9]{19}")


def digest_body(base_url: str, endpoint: str, body: bytes) -> str:
    """The same for the same question to the same server, however its keys are ordered.

    Returns:
        32 hexadecimal digits. With an occurrence number behind them they make a `custom_id` within every server's limit
        (64 characters, Together's).
    """
    # Of a number that is too large for it, orjson makes a float that others share.
    value = json.loads(body) if _LARGE_NUMBER.search(body) else orjson.loads(body)
    return _digest(base_url, endpoint, encode_canonical_json(value))


def _digest(base_url: str, endpoint: str, canonical: bytes) -> str:
    return blake2b(b"\0".join((base_url.encode(), endpoint.encode(), canonical)), digest_size=16).hexdigest()


class BodyTemplate:
    """What bodies have in common that differ in one field alone: their JSON around its value, made once for all.

    Args:
        body: one of them.
        name: the field.
    """

    __slots__ = ("_canonical", "_encoded", "_name")

    def __init__(self, body: Mapping[str, Any], name: str) -> None:
        mark = uuid4().hex
        marked = {**body, name: mark}
        self._name = name
        self._encoded = _around(mark, encode_body(marked))
        self._canonical = _around(mark, encode_canonical_json(marked))

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """As `encode_body`."""
        before, after = self._encoded
        return b"%b%b%b" % (before, encode_json(body[self._name]), after)

    def digest(self, base_url: str, endpoint: str, body: Mapping[str, Any]) -> str:
        """As `digest` of the encoded body."""
        before, after = self._canonical
        return _digest(base_url, endpoint, b"%b%b%b" % (before, encode_canonical_json(body[self._name]), after))


def _around(mark: str, text: bytes) -> tuple[bytes, bytes]:
    before, after = text.split(b'"%b"' % mark.encode())
    return before, after


_CUSTOM_ID = re.compile(r"[0-9a-f]{32}-[0-9]+")


def build_custom_id(digest: str, number: int) -> str:
    """What a request is known by: its digest, and which of several times it is asked."""
    return f"{digest}-{number}"


def is_custom_id(text: str) -> bool:
    """Whether it is of our making."""
    return _CUSTOM_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Shard:
    """Requests of one endpoint and one model that go into one input file.

    Attributes:
        requests: at least one.
        size: bytes of the input file.
    """

    requests: list[Request]
    size: int

    @classmethod
    def of(cls, requests: list[Request]) -> Shard:
        """Makes a shard of requests."""
        return cls(requests, sum(request.size for request in requests))

    @property
    def endpoint(self) -> str:
        """The path that all its requests go to."""
        return self.requests[0].endpoint

    def split_by_ids(self, custom_ids: Set[str]) -> tuple[Shard | None, Shard | None]:
        """Itself in two shards: the requests that are named, and the others; `None` where there are none."""
        parts: tuple[list[Request], list[Request]] = [], []
        for request in self.requests:
            parts[request.custom_id not in custom_ids].append(request)
        if not parts[1]:
            return self, None
        named, others = (Shard.of(part) if part else None for part in parts)
        return named, others

    def split(self, size: int) -> list[Shard]:
        """Itself in shards of about as many requests each.

        Args:
            size: requests in each, about.
        """
        count = max(1, round(len(self.requests) / size))
        edges = [len(self.requests) * part // count for part in range(count + 1)]
        return [Shard.of(self.requests[start:end]) for start, end in pairwise(edges)]


def cut_shards(requests: Iterable[Request], max_requests: int, max_bytes: int) -> Iterator[Shard]:
    """Cuts requests into shards that each fit an input file.

    Args:
        requests: in any mix of endpoints and models; the order within one endpoint and model is kept.
        max_requests: requests in a shard, at most.
        max_bytes: bytes of a shard's input file, at most. A request that is larger by itself makes a shard of its own.

    Yields:
        As few shards as that allows, without reordering.
    """
    filling: dict[tuple[str, str], tuple[list[Request], int]] = {}
    for request in requests:
        key = (request.endpoint, request.model)
        shard, size = filling.get(key, ([], 0))
        length = request.size
        if shard and (len(shard) == max_requests or size + length > max_bytes):
            yield Shard(shard, size)
            shard, size = [], 0
        shard.append(request)
        filling[key] = shard, size + length
    for shard, size in filling.values():
        yield Shard(shard, size)
