"""Index of a scope's packs in memory: 16 bytes for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.ledger.packs import PACK_SIZE, Pack, PackedNames, Query, unpack_numbers

# The low bits of a key hold the occurrence number, the others begin the digest.
_DIGEST_MASK = np.uint64(2**64 - 2**20)

_SELECT_NAMES = "SELECT id, digests, occurrences, places FROM packs WHERE scope = ? AND id > ? ORDER BY id"

_Keys = npt.NDArray[np.uint64]
_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackHits:
    """Requests that one pack has.

    Attributes:
        pack: the pack.
        indexes: the indexes of the requests in the pack.
        custom_ids: their `custom_id`s.
    """

    pack: Pack
    indexes: list[int]
    custom_ids: list[str]


class PackIndex:
    """The requests of a scope's packs, by `custom_id`.

    The index only grows: requests that left their packs, and packs that were deleted, stay, and two digests may have
    the same first 44 bits. So a found id is a candidate: `find` compares the candidate with its pack in the ledger, and
    the caller of `find_digest` has to.

    Args:
        scope_id: the id of the scope's row.
    """

    def __init__(self, scope_id: int) -> None:
        self._scope_id = scope_id
        self._last_id = -1
        # Sorted runs of keys with the ids of their requests, the longest first.
        self._runs: list[tuple[_Keys, _Ids]] = []

    @property
    def is_empty(self) -> bool:
        """Return whether the scope has had no packs yet."""
        return not self._runs

    def refresh(self, query: Query) -> None:
        """Add the packs that were inserted since the last call, by any process."""
        keys: list[_Keys] = []
        ids: list[_Ids] = []
        for pack_id, digests, occurrences, places in query(_SELECT_NAMES, (self._scope_id, self._last_id)):
            self._last_id = pack_id
            keys.append(_keys(digests, unpack_numbers("I", occurrences)))
            offsets = np.asarray(unpack_numbers("H", places), dtype=np.int64) if places else np.arange(len(keys[-1]))
            ids.append(pack_id + offsets)
        if keys:
            self._add(np.concatenate(keys[::-1]), np.concatenate(ids[::-1]))

    def find(self, names: PackedNames, load: Callable[[set[int]], Mapping[int, Pack]]) -> Iterator[PackHits]:
        """Yield the requests that are in packs, pack by pack.

        Args:
            names: the `custom_id`s of the requests.
            load: returns the packs that exist among some ids.
        """
        digests = _halves(names.digests)
        is_found = np.zeros(len(names.custom_ids), dtype=bool)
        packs: dict[int, Pack] = {}
        for indexes, ids in self._find_candidates(_keys(names.digests, names.occurrences)):
            pack_ids = ids - ids % PACK_SIZE
            packs |= load({*np.unique(pack_ids).tolist()} - packs.keys())
            order = np.argsort(pack_ids, kind="stable")
            for part in np.split(order, np.flatnonzero(np.diff(pack_ids[order])) + 1):
                if pack := packs.get(int(pack_ids[part[0]])):
                    members = _find_members(pack, ids[part], digests[indexes[part]])
                    is_new = (members >= 0) & ~is_found[indexes[part]]
                    wanted = indexes[part][is_new]
                    is_found[wanted] = True
                    yield PackHits(
                        pack, members[is_new].tolist(), [names.custom_ids[index] for index in wanted.tolist()]
                    )

    def _find_candidates(self, wanted: _Keys) -> Iterator[tuple[_Ids, _Ids]]:
        """Yield indexes of wanted keys, and the ids of requests with these keys, those of the latest packs first."""
        for keys, ids in reversed(self._runs):
            indexes = np.arange(len(wanted))
            places = np.searchsorted(keys, wanted)
            while len(indexes):
                inside = places < len(keys)
                indexes, places = indexes[inside], places[inside]
                same = keys[places] == wanted[indexes]
                indexes, places = indexes[same], places[same]
                if len(indexes):
                    yield indexes, ids[places]
                places = places + 1

    def find_digest(self, digest: bytes) -> Iterator[int]:
        """Yield the ids of candidates with a digest and any occurrence number."""
        [start] = _keys(digest)
        for keys, ids in reversed(self._runs):
            first = np.searchsorted(keys, start)
            end = np.searchsorted(keys, start | ~_DIGEST_MASK, side="right")
            yield from ids[first:end].tolist()

    def _add(self, keys: _Keys, ids: _Ids) -> None:
        """Add a run, and merge runs of about the same length, so that there are few."""
        while self._runs and len(self._runs[-1][0]) < 2 * len(keys):
            other_keys, other_ids = self._runs.pop()
            keys, ids = np.concatenate((keys, other_keys)), np.concatenate((ids, other_ids))
        # Equal keys are found in this order → the latest first.
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], ids[order]))


def _keys(digests: bytes, occurrences: Sequence[int] | None = None) -> _Keys:
    """Return a key for each digest and occurrence number; `None` stands for zeros."""
    keys: _Keys = np.frombuffer(digests, dtype=">u8")[::2].astype(np.uint64) & _DIGEST_MASK
    if occurrences is not None:
        keys |= np.asarray(occurrences, dtype=np.uint64)
    return keys


def _find_members(pack: Pack, request_ids: _Ids, digests: _Keys) -> _Ids:
    """Return the index in a pack of each candidate; -1 for a request that the pack does not have.

    Args:
        pack: the pack.
        request_ids: the ids of the candidates, which the pack's span contains.
        digests: the digests that the candidates should have, in two halves.
    """
    members = request_ids - pack.id
    if pack.places is not None:
        places = np.asarray(pack.places, dtype=np.int64)
        indexes = np.searchsorted(places, members)
        inside = np.minimum(indexes, len(places) - 1)
        members = np.where(places[inside] == members, inside, -1)
    members = np.where(members < len(pack), members, -1)
    same = (_halves(pack.digests)[members] == digests).all(axis=1)
    return np.where(same, members, -1)


def _halves(digests: bytes) -> _Keys:
    """Return the two halves of each digest as numbers."""
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
