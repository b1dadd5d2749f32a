"""Digests and `custom_id`s of many requests in little memory: texts would take 150 bytes for each."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.api.requests import DIGEST_BYTES
from distilabel_openai_batch.ledger.packs import FirstOccurrences, LazyNames, parse_first_occurrences

# Digests that are kept whole: few enough to take no memory, and enough to make additions of single digests cheap.
_MAX_LATEST = 4_096

# Digests that are sorted at once: a run of a few would take more memory and time than the digests.
_MIN_RUN = 500

# Bits of a filter for each key, at least: one in 8 keys that the set lacks has the bit of another key, at most.
_BITS_PER_KEY = 8

_Keys = npt.NDArray[np.uint64]


class _KeyFilter:
    """A table with a bit for each key; it may have a bit of a key that was not added.

    A search of a million sorted keys reads some twenty places in the memory, and a look at the filter one.

    Args:
        capacity: number of keys for which the filter is made, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        bits = (_BITS_PER_KEY * capacity - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._bits = np.zeros(2 ** (bits - 3), dtype=np.uint8)

    def has_room(self, count: int) -> bool:
        """Return whether the filter is large enough for a number of keys."""
        return _BITS_PER_KEY * count <= 8 * len(self._bits)

    def add(self, keys: _Keys) -> None:
        """Add keys in ascending order; at least one."""
        places, bits = self._locate(keys)
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        self._bits[places[starts]] |= np.bitwise_or.reduceat(bits, starts)

    def find_possible(self, keys: _Keys) -> npt.NDArray[np.int64]:
        """Return the indexes of the keys that may have been added."""
        places, bits = self._locate(keys)
        return np.flatnonzero(self._bits[places] & bits)

    def _locate(self, keys: _Keys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return the byte and the bit of each key: digests are spread evenly, so the first bits of a key are enough."""
        numbers = (keys >> self._shift).astype(np.int64)
        return numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)


class DigestSet:
    """A set of request digests in 8 to 10 bytes for each.

    Digests with the same first 64 bits count as equal, of which a million digests have two with a probability of 3e-8.

    Args:
        max_latest: number of digests that are kept whole, at most.
    """

    def __init__(self, max_latest: int = _MAX_LATEST) -> None:
        self._max_latest = max_latest
        self._latest: set[bytes] = set()
        # Sorted runs of keys, the longest first.
        self._runs: list[_Keys] = []
        self._filter = _KeyFilter(max_latest)

    def add(self, joined: bytes) -> Set[int]:
        """Add digests; return the indexes of the digests that the set has already, or that stand at a lower index.

        Args:
            joined: the digests, `DIGEST_BYTES` bytes each.
        """
        keys = _keys(joined)
        are_many = len(keys) >= _MIN_RUN
        if are_many:
            self._sort_latest()
        known = self._find_in_runs(keys)
        if are_many and not known:
            keys.sort()
            if (keys[1:] != keys[:-1]).all():
                self._add_run(keys)
                return known
        digests = [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]
        if known or len({*digests}) < len(digests) or not self._latest.isdisjoint(digests):
            for index, digest in enumerate(digests):
                if digest in self._latest:
                    known.add(index)
                elif index not in known:
                    self._latest.add(digest)
        else:
            self._latest.update(digests)
        if len(self._latest) > self._max_latest:
            self._sort_latest()
        return known

    def _sort_latest(self) -> None:
        if self._latest:
            self._add_run(np.sort(_keys(b"".join(self._latest))))
            self._latest.clear()

    def _find_in_runs(self, keys: _Keys) -> set[int]:
        found: set[int] = set()
        if not self._runs:
            return found
        possible = self._filter.find_possible(keys)
        wanted = keys[possible]
        for run in self._runs if len(possible) else ():
            places = np.minimum(np.searchsorted(run, wanted), len(run) - 1)
            found.update(possible[run[places] == wanted].tolist())
        return found

    def _add_run(self, keys: _Keys) -> None:
        """Add a run, and merge runs of about the same length, so that there are few."""
        count = sum(map(len, self._runs)) + len(keys)
        if self._filter.has_room(count):
            self._filter.add(keys)
        else:
            self._filter = _KeyFilter(2 * count)
            for run in (*self._runs, keys):
                self._filter.add(run)
        while self._runs and len(self._runs[-1]) < 2 * len(keys):
            keys = np.concatenate((self._runs.pop(), keys))
            keys.sort(kind="stable")
        self._runs.append(keys)


class CustomIdList(LazyNames):
    """A list of `custom_id`s in 16 bytes for each that has the occurrence number 0; the others come last, as texts."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._others: list[str] = []

    def extend(self, custom_ids: Sequence[str]) -> None:
        """Append `custom_id`s."""
        digests = parse_first_occurrences(custom_ids)
        if digests is None and len(custom_ids) > 1:
            for custom_id in custom_ids:
                self.extend([custom_id])
        elif digests is None:
            self._others += custom_ids
        else:
            self._digests += digests

    def __len__(self) -> int:
        return len(self._digests) // DIGEST_BYTES + len(self._others)

    def _cut(self, start: int, stop: int) -> Sequence[str]:
        firsts = len(self._digests) // DIGEST_BYTES
        names = FirstOccurrences(bytes(self._digests[DIGEST_BYTES * start : DIGEST_BYTES * stop]))
        others = self._others[max(0, start - firsts) : max(0, stop - firsts)]
        return [*names, *others] if others else names


def _keys(digests: bytes) -> _Keys:
    """Return the first 64 bits of each digest."""
    return np.frombuffer(digests, dtype=">u8")[::2].astype(np.uint64)
