"""Index of a scope's packs in memory: 8 bytes for each request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.api.requests import DIGEST_BYTES
from distilabel_openai_batch.ledger.packs import PACK_SIZE, Query, unpack_numbers

Keys = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int64]

# An entry has 40 bits of a digest, 14 bits for the pack's place in its run, and 10 bits for the request's place in the
# pack.
_PLACE_BITS = 10
_LOCATOR_BITS = 24
_MAX_RUN_PACKS = 2 ** (_LOCATOR_BITS - _PLACE_BITS)
_PLACE_MASK = np.uint64(2**_PLACE_BITS - 1)
_LOCATOR_MASK = np.uint64(2**_LOCATOR_BITS - 1)

_SELECT_NAMES = "SELECT id, digests, occurrences, places FROM packs WHERE scope = ? AND id > ? ORDER BY id"

# Packs whose entries are computed together: their digests fit into a processor's cache.
_BATCH = 128

_PLACES = np.arange(PACK_SIZE, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Requests in packs that may be wanted requests.

    Attributes:
        indexes: the index of each wanted request.
        pack_ids: the id of the pack.
        places: the id of the request, less the id of the pack.
    """

    indexes: Ids
    pack_ids: Ids
    places: Ids


@dataclass(frozen=True, slots=True)
class _SortedRun:
    """Sorted entries.

    Attributes:
        entries: the entries, ascending.
        pack_ids: the ids of the packs, in the order in which the packs were added.
    """

    entries: Keys
    pack_ids: Ids

    def merge(self, later: _SortedRun) -> _SortedRun:
        """Return a run with the entries of another run, whose packs were added later, in linear time."""
        moved = later.entries + np.uint64(len(self.pack_ids) << _PLACE_BITS)
        entries = np.concatenate((self.entries, moved))
        # The stable sort of numpy finds the two sorted parts, and merges them.
        entries.sort(kind="stable")
        return _SortedRun(entries, np.concatenate((self.pack_ids, later.pack_ids)))


class PackIndex:
    """The requests of a scope's packs, by `custom_id`.

    The index only grows: requests that left their packs, and packs that were deleted, stay, and two digests may have
    the same first 40 bits. So a found request is a candidate, which the caller compares with its pack in the ledger.

    Args:
        scope_id: the id of the scope's row.
    """

    def __init__(self, scope_id: int) -> None:
        self._scope_id = scope_id
        self._last_id = -1
        # The longest run first.
        self._runs: list[_SortedRun] = []
        # The entries of a digest differ in these bits of their keys at most.
        self._occurrence_bits = 0

    @property
    def is_empty(self) -> bool:
        """Return whether the scope has had no packs yet."""
        return not self._runs

    def refresh(self, query: Query) -> None:
        """Add the packs that were inserted since the last call, by any process."""
        rows = iter(query(_SELECT_NAMES, (self._scope_id, self._last_id)))
        while batches := list(self._read_batches(rows)):
            entries = np.concatenate([entries for entries, _ in batches])
            entries.sort()
            pack_ids = [pack_id for _, batch in batches for pack_id in batch]
            batches.clear()
            self._add(_SortedRun(entries, np.array(pack_ids, dtype=np.int64)))

    def find(self, keys: Keys) -> Candidates:
        """Return the candidates for wanted requests.

        Args:
            keys: the key of each wanted request, at least one, as `build_keys` returns keys.
        """
        # A search for sorted keys reads the entries from the first to the last.
        order = np.argsort(keys)
        wanted = keys[order]
        found: list[Candidates] = []
        for run in self._runs:
            indexes, spots = order, np.searchsorted(run.entries, wanted)
            while len(indexes):
                inside = spots < len(run.entries)
                indexes, spots = indexes[inside], spots[inside]
                entries = run.entries[spots]
                same = (entries & ~_LOCATOR_MASK) == keys[indexes]
                indexes, spots, entries = indexes[same], spots[same] + 1, entries[same]
                found.append(Candidates(indexes, *_locate(run, entries)))
        return _join(found)

    def find_digests(self, digests: bytes) -> Candidates:
        """Return the candidates for digests, at least one, with any occurrence number."""
        keys = build_keys(digests)
        order = np.argsort(keys)
        bits = np.uint64(self._occurrence_bits)
        first_keys, last_keys = keys[order] & ~bits, keys[order] | bits | _LOCATOR_MASK
        found: list[Candidates] = []
        for run in self._runs:
            firsts = np.searchsorted(run.entries, first_keys)
            counts = np.searchsorted(run.entries, last_keys, side="right") - firsts
            ends = np.cumsum(counts)
            spots = np.arange(ends[-1]) + np.repeat(firsts - ends + counts, counts)
            found.append(Candidates(np.repeat(order, counts), *_locate(run, run.entries[spots])))
        return _join(found)

    def find_digest(self, digest: bytes) -> list[int]:
        """Return the ids of the candidates for one digest, in a fraction of the time of `find_digests`."""
        key = int.from_bytes(digest[:8], "big") & ~int(_LOCATOR_MASK)
        start, end = key & ~self._occurrence_bits, key | self._occurrence_bits | int(_LOCATOR_MASK)
        found: list[int] = []
        for run in self._runs:
            first = run.entries.searchsorted(np.uint64(start))
            last = run.entries.searchsorted(np.uint64(end), side="right")
            if first < last:
                pack_ids, places = _locate(run, run.entries[first:last])
                found += (pack_ids + places).tolist()
        return found

    def _read_batches(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Keys, list[int]]]:
        """Yield the entries and the ids of packs, in batches, until a run is full."""
        for start in range(0, _MAX_RUN_PACKS, _BATCH):
            batch = list(islice(rows, min(_BATCH, _MAX_RUN_PACKS - start)))
            if not batch:
                return
            pack_ids = [pack_id for pack_id, *_ in batch]
            self._last_id = pack_ids[-1]
            entries, bits = _build_entries(batch, start)
            self._occurrence_bits |= bits
            yield entries, pack_ids

    def _add(self, run: _SortedRun) -> None:
        """Add a run, and merge runs of about the same length, so that there are few."""
        while (
            self._runs
            and len(self._runs[-1].entries) < 2 * len(run.entries)
            and len(self._runs[-1].pack_ids) + len(run.pack_ids) <= _MAX_RUN_PACKS
        ):
            run = self._runs.pop().merge(run)
        self._runs.append(run)


def build_keys(digests: bytes, occurrences: Sequence[int] | None = None) -> Keys:
    """Return a key for each digest and occurrence number; `None` stands for zeros."""
    keys: Keys = np.frombuffer(digests, dtype=">u8")[::2].astype(np.uint64) & ~_LOCATOR_MASK
    if occurrences is not None:
        # An exclusive or keeps the occurrences of a digest near each other.
        keys ^= np.asarray(occurrences, dtype=np.uint64) << np.uint64(_LOCATOR_BITS)
    return keys


def _build_entries(rows: Sequence[tuple[int, bytes, bytes | None, bytes | None]], start: int) -> tuple[Keys, int]:
    """Return the entries of packs, and the bits in which the keys of a digest may differ.

    Args:
        rows: the columns of `_SELECT_NAMES` of the packs.
        start: the place of the first pack in its run.
    """
    entries = build_keys(b"".join([digests for _, digests, _, _ in rows]))
    bits, end = 0, 0
    for ordinal, (_, digests, occurrences, places) in enumerate(rows, start):
        first, end = end, end + len(digests) // DIGEST_BYTES
        part = entries[first:end]
        part += np.uint64(ordinal << _PLACE_BITS)
        part += np.asarray(unpack_numbers("H", places), dtype=np.uint64) if places else _PLACES[: end - first]
        if numbers := unpack_numbers("I", occurrences):
            part ^= np.asarray(numbers, dtype=np.uint64) << np.uint64(_LOCATOR_BITS)
            bits |= (1 << max(numbers).bit_length()) - 1
    return entries, bits << _LOCATOR_BITS


def _join(parts: Sequence[Candidates]) -> Candidates:
    """Return the candidates of all runs."""
    return Candidates(
        np.concatenate([part.indexes for part in parts]),
        np.concatenate([part.pack_ids for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


def _locate(run: _SortedRun, entries: Keys) -> tuple[Ids, Ids]:
    """Return the id of each entry's pack, and the place in the pack."""
    packs = (entries & _LOCATOR_MASK) >> np.uint64(_PLACE_BITS)
    return run.pack_ids[packs.astype(np.int64)], (entries & _PLACE_MASK).astype(np.int64)
