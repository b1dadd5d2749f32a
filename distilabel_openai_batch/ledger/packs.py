"""Packs: requests of one batch that nothing sets apart, up to 1,000 in one row of the ledger.

A pack's requests are all pending, or all answered with status 200 by the batch that held them first. A request with
another outcome, a second job, a rejection or a copy leaves its pack for a row of its own in the table `requests`, and
keeps its id. All numbers in blobs are little-endian.
"""

from __future__ import annotations

import re
import sys
from abc import abstractmethod
from array import array
from binascii import unhexlify
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, overload

import numpy as np

from distilabel_openai_batch.api.requests import DIGEST_BYTES, build_custom_id
from distilabel_openai_batch.api.usage import LONG_PROMPT

PACK_SIZE = 1_000
"""Ids that each pack reserves. The results of a job are recorded in chunks of the same size."""

MIN_PACK = 100
"""Requests in a pack when it is made. Fewer requests take less space as rows, as a page has 8,192 bytes."""

MAX_OCCURRENCE = 2**20 - 1
"""The highest occurrence number in a pack. `PackIndex` reads the entries of 2**20 numbers to find all of a digest."""

Query = Callable[[str, Sequence[Any]], Iterable[tuple[Any, ...]]]
"""Function that runs a statement with parameters, and returns the rows."""

# The end of a `custom_id` with occurrence number 0.
_FIRST = "-0"

_OCCURRENCE = re.compile(r"-(0|[1-9][0-9]{0,6})")

MAX_TOKENS = 2**31 - 1
"""The highest number of tokens in a pack."""

PACK_COLUMNS = (
    "id, scope, job, size, answered, handed_over, used_at, tokens_in, tokens_out, tokens_cached, tokens_written,"
    " tokens_reasoning, model, long_usages, digests, occurrences, places, usage"
)
"""The columns of the table `packs`."""

_COLUMNS = "id, job, answered, handed_over, used_at, digests, occurrences, places, usage"

SELECT_PACKS = f"SELECT {_COLUMNS} FROM packs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"  # noqa: S608
"""Query of packs by a JSON list of ids, with the columns that `Pack.of_row` takes."""

SELECT_PACKS_OF_JOB = f"SELECT {_COLUMNS} FROM packs WHERE job = ? ORDER BY id"  # noqa: S608

SELECT_PACKS_AFTER = f"""
    SELECT {_COLUMNS} FROM packs WHERE scope = ? AND id > ? AND answered = coalesce(?, answered) ORDER BY id LIMIT ?
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Pack:
    """A row of the table `packs`.

    Attributes:
        id: the pack's id, a multiple of `PACK_SIZE`.
        job: the id of the job that holds the requests.
        is_answered: whether the ledger has the answers to all requests of the pack; otherwise all are pending.
        handed_over: whether a run that succeeded has delivered the answers.
        used_at: the begin of the last run that used the answers, in seconds since the epoch.
        digests: the digests of the requests, `DIGEST_BYTES` bytes each.
        occurrences: their occurrence numbers; `None` if all are 0.
        places: their ids, less the pack's id, ascending; `None` if the ids have no gap.
        usage: billed tokens of each answer: in, out, cached, written, reasoning, a column after the other. Columns of
            zeros are left out at the end. `None` for pending requests.
    """

    id: int
    job: int
    is_answered: bool
    handed_over: bool
    used_at: float | None
    digests: bytes
    occurrences: Sequence[int] | None
    places: Sequence[int] | None
    usage: Sequence[int] | None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Pack:
        """Create a pack from the columns of a `SELECT_PACKS…` statement."""
        id_, job, answered, handed_over, used_at, digests, occurrences, places, usage = row
        return cls(
            id_,
            job,
            bool(answered),
            bool(handed_over),
            used_at,
            digests,
            unpack_numbers("I", occurrences),
            unpack_numbers("H", places),
            unpack_numbers("i", usage),
        )

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    @property
    def request_ids(self) -> Sequence[int]:
        """The ids of the requests."""
        if self.places is None:
            return range(self.id, self.id + len(self))
        return [self.id + place for place in self.places]

    def custom_ids(self) -> list[str]:
        """Return the `custom_id`s of the requests, in the order of the ids."""
        if self.occurrences is None:
            return name_first_occurrences(self.digests)
        names = self.digests.hex("\n", DIGEST_BYTES).split("\n")
        return [build_custom_id(name, number) for name, number in zip(names, self.occurrences, strict=True)]

    def custom_id(self, index: int) -> str:
        """Return the `custom_id` of the request with an index."""
        return build_custom_id(self.digest(index).hex(), self.occurrence(index))

    def occurrence(self, index: int) -> int:
        """Return the occurrence number of the request with an index."""
        return self.occurrences[index] if self.occurrences else 0

    def digest(self, index: int) -> bytes:
        """Return the digest of the request with an index."""
        return self.digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]

    def index_of(self, request_id: int) -> int | None:
        """Return the index of the request with an id; `None` if the request has left the pack."""
        place = request_id - self.id
        if self.places is None:
            return place if 0 <= place < len(self) else None
        index = bisect_left(self.places, place)
        return index if index < len(self.places) and self.places[index] == place else None

    def tokens(self, index: int) -> tuple[int, int, int, int, int]:
        """Return the billed tokens of an answer: in, out, cached, written, reasoning."""
        size = len(self)
        found = [*(self.usage or ())[index::size], 0, 0, 0, 0, 0]
        return (found[0], found[1], found[2], found[3], found[4])

    def token_pairs(self) -> list[tuple[int, int]]:
        """Return the billed tokens of all answers, in and out."""
        size, usage = len(self), self.usage or ()
        tokens_in, tokens_out = usage[:size], usage[size : 2 * size]
        return list(zip(tokens_in or repeat(0, size), tokens_out or repeat(0, size), strict=True))

    def select(self, indexes: Collection[int]) -> Pack:
        """Return the pack with some of its requests, which are given by ascending indexes."""
        size = len(self)
        request_ids = self.request_ids
        usage = self.usage
        columns = range(len(usage) // size) if usage else ()
        return replace(
            self,
            digests=b"".join(map(self.digest, indexes)),
            occurrences=self.occurrences and array("I", (self.occurrences[index] for index in indexes)),
            places=array("H", (request_ids[index] - self.id for index in indexes)),
            usage=usage and array("i", (usage[column * size + index] for column in columns for index in indexes)),
        )

    def with_usage(self, columns: Iterable[Sequence[int]]) -> Pack:
        """Return the pack as answered, with the billed tokens of all answers: in, out, cached, written, reasoning."""
        numbers = [array("i", column) for column in columns]
        while numbers and not any(numbers[-1]):
            del numbers[-1]
        return replace(self, is_answered=True, usage=sum(numbers, array("i")))

    def columns(self) -> dict[str, Any]:
        """Return the values of the columns that depend on the pack's requests, by their names."""
        size = len(self)
        usage = self.usage or array("i")
        totals = [sum(usage[column * size : (column + 1) * size]) for column in range(5)]
        names = ("tokens_in", "tokens_out", "tokens_cached", "tokens_written", "tokens_reasoning")
        tokens_in = usage[:size]
        long_prompts: list[int] = []
        if max(tokens_in, default=0) > LONG_PROMPT:
            long_prompts = [index for index, tokens in enumerate(tokens_in) if tokens > LONG_PROMPT]
        return {
            "size": size,
            "answered": int(self.is_answered),
            **dict(zip(names, totals, strict=True)),
            "long_usages": ",".join(" ".join(map(str, self.tokens(index))) for index in long_prompts) or None,
            "digests": self.digests,
            "occurrences": pack_numbers(self.occurrences),
            "places": pack_numbers(self.places),
            "usage": pack_numbers(self.usage),
        }


class LazyNames(Sequence[str]):
    """`custom_id`s that become texts when they are needed."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        places = range(len(self))[index]
        if isinstance(places, int):
            [name] = self._cut(places, places + 1)
            return name
        if places.step != 1:
            return [self[place] for place in places]
        return self._cut(places.start, places.stop)

    @abstractmethod
    def _cut(self, start: int, stop: int) -> Sequence[str]:
        """Return the `custom_id`s from one index up to another one."""


class FirstOccurrences(LazyNames):
    """`custom_id`s with occurrence number 0.

    Args:
        digests: the digests, `DIGEST_BYTES` bytes each.

    Attributes:
        digests: as given.
    """

    __slots__ = ("digests",)

    def __init__(self, digests: bytes) -> None:
        self.digests = digests

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def __iter__(self) -> Iterator[str]:
        return iter(name_first_occurrences(self.digests) if self.digests else ())

    def _cut(self, start: int, stop: int) -> FirstOccurrences:
        return FirstOccurrences(self.digests[DIGEST_BYTES * start : DIGEST_BYTES * stop])


@dataclass(frozen=True, slots=True)
class PackedNames:
    """`custom_id`s whose form lets them enter a pack.

    Attributes:
        custom_ids: the `custom_id`s.
        digests: their digests, `DIGEST_BYTES` bytes each.
        occurrences: their occurrence numbers; `None` if all are 0.
    """

    custom_ids: Sequence[str]
    digests: bytes
    occurrences: Sequence[int] | None

    @classmethod
    def of(cls, custom_ids: Sequence[str]) -> PackedNames:
        """Parse `custom_id`s, and leave out those of another form."""
        if (digests := parse_first_occurrences(custom_ids)) is not None:
            return cls(custom_ids, digests, None)
        try:
            return cls(custom_ids, *_parse(custom_ids))
        except ValueError:
            names = [name for name in custom_ids if _is_packable(name)]
            return cls(names, *_parse(names))

    def __len__(self) -> int:
        return len(self.custom_ids)

    def digest(self, index: int) -> bytes:
        """Return the digest of the `custom_id` with an index."""
        return self.digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]

    def occurrence(self, index: int) -> int:
        """Return the occurrence number of the `custom_id` with an index."""
        return self.occurrences[index] if self.occurrences else 0

    def cut(self, size: int) -> Iterator[tuple[bytes, Sequence[int] | None]]:
        """Yield the digests and the occurrence numbers, as `Pack` has them, of up to `size` requests each."""
        for start in range(0, len(self), size):
            numbers = self.occurrences and self.occurrences[start : start + size]
            digests = self.digests[DIGEST_BYTES * start : DIGEST_BYTES * (start + size)]
            yield digests, numbers if numbers and any(numbers) else None


def parse_digest(text: str) -> bytes | None:
    """Return a digest that a pack may have; `None` for a text of another form."""
    return PackedNames.of([f"{text}{_FIRST}"]).digests or None


def name_first_occurrences(digests: bytes) -> list[str]:
    """Return the `custom_id`s with the occurrence number 0 of digests, `DIGEST_BYTES` bytes each; at least one."""
    return (digests.hex("\n", DIGEST_BYTES).replace("\n", f"{_FIRST}\n") + _FIRST).split("\n")


def parse_first_occurrences(custom_ids: Sequence[str]) -> bytes | None:
    """Return the digests of `custom_id`s with occurrence number 0; `None` if a `custom_id` has another form."""
    if isinstance(custom_ids, FirstOccurrences):
        return custom_ids.digests
    width = 2 * DIGEST_BYTES
    text = "".join(custom_ids)
    if set(map(len, custom_ids)) != {width + len(_FIRST)} or not text.isascii() or text != text.lower():
        return None
    characters = np.frombuffer(text.encode(), dtype=np.uint8).reshape(len(custom_ids), -1)
    if (characters[:, width:] != np.frombuffer(_FIRST.encode(), dtype=np.uint8)).any():
        return None
    try:
        return unhexlify(characters[:, :width].tobytes())
    except ValueError:
        return None


def first_id(request_id: int) -> int:
    """Return the id of the pack that a request with an id belongs or belonged to, if to any."""
    return request_id - request_id % PACK_SIZE


def find_member(packs: Mapping[int, Pack], request_id: int) -> tuple[Pack, int] | None:
    """Return the pack that has a request, and the request's index; `None` if no pack has the request.

    Args:
        packs: packs by their ids.
        request_id: the id of the request.
    """
    pack = packs.get(first_id(request_id))
    index = pack.index_of(request_id) if pack else None
    return (pack, index) if pack and index is not None else None


def chunk_lengths(request_ids: Sequence[int], limit: int) -> Iterator[int]:
    """Yield the lengths of chunks of requests which separate no requests of a pack, unless the limit does.

    Args:
        request_ids: the ids of the requests, ascending.
        limit: the number of requests in a chunk, at most.
    """
    start = 0
    while start < len(request_ids):
        end = bisect_left(request_ids, first_id(request_ids[start]) + PACK_SIZE, start)
        yield (length := min(limit, end - start))
        start += length


def find_members(packs: Iterable[Pack], custom_ids: Iterable[str]) -> Iterator[tuple[str, Pack, int]]:
    """Yield the `custom_id`s that packs have, each with its pack and its index, by reading all of the packs.

    For many `custom_id`s and packs, `PackSearch` takes less time.
    """
    names = PackedNames.of(list(custom_ids))
    wanted = {(names.digest(index), names.occurrence(index)): name for index, name in enumerate(names.custom_ids)}
    for pack in packs:
        for index, number in enumerate(pack.occurrences or [0] * len(pack)):
            if name := wanted.get((pack.digest(index), number)):
                yield name, pack, index


def pack_numbers(numbers: Sequence[int] | None) -> bytes | None:
    """Return a blob of an array's numbers; `None` for `None`."""
    if numbers is None:
        return None
    assert isinstance(numbers, array)
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


@overload
def unpack_numbers(kind: str, blob: bytes) -> Sequence[int]: ...


@overload
def unpack_numbers(kind: str, blob: None) -> None: ...


def unpack_numbers(kind: str, blob: bytes | None) -> Sequence[int] | None:
    """Return the numbers of a blob, which may have none; `None` for `None`.

    Args:
        kind: the array's type code: `"H"` for 16 bits, `"I"` and `"i"` for 32 bits.
        blob: the blob.
    """
    if blob is None:
        return None
    numbers: array[int] = array(kind)
    numbers.frombytes(blob)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _parse(custom_ids: Sequence[str]) -> tuple[bytes, array[int]]:
    """Return digests and occurrence numbers of `custom_id`s; raise `ValueError` if one has another form."""
    width = 2 * DIGEST_BYTES
    text = "".join([name[:width] for name in custom_ids])
    digests = bytes.fromhex(text)
    # `fromhex` skips spaces and takes capitals, which a `custom_id` with the same digest does not have.
    if digests.hex() != text:
        raise ValueError("a digest has 32 lowercase hexadecimal digits")
    return digests, array("I", [0 if name[width:] == _FIRST else _occurrence(name[width:]) for name in custom_ids])


def _occurrence(text: str) -> int:
    found = _OCCURRENCE.fullmatch(text)
    if not found or int(found[1]) > MAX_OCCURRENCE:
        raise ValueError(f"{text} is no occurrence number of a pack")
    return int(found[1])


def _is_packable(custom_id: str) -> bool:
    try:
        _parse([custom_id])
    except ValueError:
        return False
    return True
