"""Digests and `custom_id`s of many requests in little memory: texts would take 150 bytes for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import overload

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.api.requests import DIGEST_BYTES
from distilabel_openai_batch.ledger.packs import name_first_occurrences, parse_first_occurrences

# Digests that are kept as texts: few enough to take no memory, and enough to make additions of single digests cheap.
_MAX_LATEST = 4_096

_Keys = npt.NDArray[np.uint64]


class DigestSet:
    """A set of request digests in 8 bytes for each.

    Digests with the same first 64 bits count as equal, of which a million digests have two with a probability of 3e-8.

    Args:
        max_latest: number of digests that are kept as texts, at most.
    """

    def __init__(self, max_latest: int = _MAX_LATEST) -> None:
        self._max_latest = max_latest
        self._latest: set[str] = set()
        # Sorted runs of keys, the longest first.
        self._runs: list[_Keys] = []

    def add(self, digests: Sequence[str]) -> Set[int]:
        """Add digests; return the indexes of the digests that the set has already, or that stand at a lower index."""
        known = self._find_in_runs(digests)
        if known or len({*digests}) < len(digests) or not self._latest.isdisjoint(digests):
            for index, digest in enumerate(digests):
                if digest in self._latest:
                    known.add(index)
                elif index not in known:
                    self._latest.add(digest)
        else:
            self._latest.update(digests)
        if len(self._latest) > self._max_latest:
            self._add_run(np.sort(_keys(self._latest)))
            self._latest.clear()
        return known

    def _find_in_runs(self, digests: Sequence[str]) -> set[int]:
        if not self._runs:
            return set()
        keys = _keys(digests)
        is_found = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            places = np.searchsorted(run, keys)
            is_found |= run[np.minimum(places, len(run) - 1)] == keys
        return {*np.flatnonzero(is_found).tolist()}

    def _add_run(self, keys: _Keys) -> None:
        """Add a run, and merge runs of about the same length, so that there are few."""
        while self._runs and len(self._runs[-1]) < 2 * len(keys):
            keys = np.concatenate((self._runs.pop(), keys))
            keys.sort(kind="stable")
        self._runs.append(keys)


class CustomIdList(Sequence[str]):
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

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self[places : places + 1][0]
        if places.step != 1:
            return [self[place] for place in places]
        firsts = len(self._digests) // DIGEST_BYTES
        digests = bytes(self._digests[DIGEST_BYTES * places.start : DIGEST_BYTES * places.stop])
        names = name_first_occurrences(digests) if digests else []
        return names + self._others[max(0, places.start - firsts) : max(0, places.stop - firsts)]


def _keys(digests: Iterable[str]) -> _Keys:
    """Return the first 64 bits of each digest."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=">u8")[::2].astype(np.uint64)
