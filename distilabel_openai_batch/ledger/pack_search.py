"""Search for the requests that a scope has in packs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from distilabel_openai_batch.ledger.pack_index import Candidates, Ids, Keys, PackIndex, build_keys
from distilabel_openai_batch.ledger.packs import Pack, PackedNames

# Requests in a row that are worth a comparison with a pack; fewer take less time with a search for each.
_MIN_RUN = 32

# Packs that are in memory at once.
_BATCH = 64

Load = Callable[[Collection[int]], Mapping[int, Pack]]
"""Function that returns the packs that exist among some ids."""


@dataclass(frozen=True, slots=True)
class PackHits:
    """Requests that one pack has.

    Attributes:
        pack: the pack.
        indexes: the indexes of the requests in the pack, ascending; a range if they have no gap.
        custom_ids: their `custom_id`s.
    """

    pack: Pack
    indexes: Sequence[int]
    custom_ids: Sequence[str]


class PackSearch:
    """A search for requests in packs.

    Most runs ask for requests in the order of the run before. So the search finds the pack of one request, and compares
    the requests behind this one with the requests that follow in the pack. It looks up the other requests together.

    Args:
        custom_ids: the `custom_id`s of the requests.
        index: the index of the scope's packs.
        load: loads packs.

    Attributes:
        names: the `custom_id`s that packs can have.
    """

    def __init__(self, custom_ids: Sequence[str], index: PackIndex, load: Load) -> None:
        self._custom_ids = custom_ids
        self._index = index
        self._load = load
        self.names = PackedNames.of(custom_ids)
        self._keys = build_keys(self.names.digests, self.names.occurrences)
        self._digests = _halves(self.names.digests)
        self._is_found = np.zeros(len(self.names), dtype=bool)
        self._last: Mapping[int, Pack] = {}

    def __iter__(self) -> Iterator[PackHits]:
        """Yield the requests that are in packs; a pack may be yielded several times."""
        yield from self.runs()
        yield from self._search_others()

    def others(self) -> Sequence[str]:
        """Return the requests that no pack has, after the iteration; after `runs`, the requests in no run."""
        if not self._is_found.any():
            return self._custom_ids
        names = self.names.custom_ids
        if len(names) == len(self._custom_ids):
            return [names[index] for index in np.flatnonzero(~self._is_found).tolist()]
        found = {names[index] for index in np.flatnonzero(self._is_found).tolist()}
        return [name for name in self._custom_ids if name not in found]

    def runs(self) -> Iterator[PackHits]:
        """Yield requests that follow each other as they do in a pack, in the order of the `custom_id`s."""
        start, step = 0, 1
        while start < len(self.names) and not self._index.is_empty:
            if found := self._compare_at(start):
                pack, members, positions = found
                start, step = int(positions[-1]) + 1, 1
                self._is_found[positions] = True
                yield PackHits(pack, _to_range(members), self._select(positions))
            else:
                # Steps that double keep the comparisons few if the requests have another order.
                start += step
                step *= 2

    def _compare_at(self, start: int) -> tuple[Pack, Ids, Ids] | None:
        """Find the requests that follow a request, itself included, as they do in a pack.

        Args:
            start: the index of the request.

        Returns:
            The pack, the indexes of the requests there, and their indexes among the names; `None` if no pack has the
            request, or few requests follow.
        """
        found = self._index.find(self._keys[start : start + 1])
        # The latest pack first, as in `_search_others`.
        for pack_id, place in sorted(zip(found.pack_ids.tolist(), found.places.tolist(), strict=True), reverse=True):
            if pack_id not in self._last:
                self._last = self._load([pack_id])
            pack = self._last.get(pack_id)
            first = pack.index_of(pack_id + place) if pack else None
            if pack is None or first is None:
                continue
            positions = start + _places(pack)[first:] - place
            # The requests that left the pack keep their places among the others.
            positions = positions[: np.searchsorted(positions, len(self.names))]
            members = np.arange(first, first + len(positions))
            is_same = self._is_same(pack, members, positions)
            if is_same.all():
                return pack, members, positions
            if (length := int(is_same.argmin())) >= _MIN_RUN:
                return pack, members[:length], positions[:length]
        return None

    def _search_others(self) -> Iterator[PackHits]:
        """Yield the requests that `runs` has not found."""
        wanted = np.flatnonzero(~self._is_found)
        if self._index.is_empty or not len(wanted):
            return
        for pack, members, indexes in _load_members(self._index.find(self._keys[wanted]), self._load):
            positions = wanted[indexes]
            is_hit = ~self._is_found[positions] & self._is_same(pack, members, positions)
            members, positions = members[is_hit], positions[is_hit]
            self._is_found[positions] = True
            if len(members):
                yield PackHits(pack, _to_range(members), self._select(positions))

    def _is_same(self, pack: Pack, members: Ids, positions: Ids) -> npt.NDArray[np.bool_]:
        """Return whether each member of a pack is the request at a position."""
        names = self.names
        is_same: npt.NDArray[np.bool_] = (_halves(pack.digests)[members] == self._digests[positions]).all(axis=1)
        if pack.occurrences is not None or names.occurrences is not None:
            is_same &= _take(pack.occurrences, members) == _take(names.occurrences, positions)
        return is_same

    def _select(self, positions: Ids) -> Sequence[str]:
        """Return the `custom_id`s at some positions."""
        run, names = _to_range(positions), self.names.custom_ids
        return names[run.start : run.stop] if isinstance(run, range) else [names[position] for position in run]


def search_digests(digests: Iterable[str], index: PackIndex, load: Load) -> Iterator[tuple[str, Pack, int]]:
    """Yield the requests in packs that have given digests and any occurrence number.

    Args:
        digests: the digests.
        index: the index of the scope's packs.
        load: loads packs.

    Yields:
        The digest, the pack, and the index of the request in the pack.
    """
    names = PackedNames.of([f"{digest}-0" for digest in digests])
    if index.is_empty or not names:
        return
    halves = _halves(names.digests)
    for pack, members, indexes in _load_members(index.find_digests(names.digests), load):
        is_hit = (_halves(pack.digests)[members] == halves[indexes]).all(axis=1)
        for member, position in zip(members[is_hit].tolist(), indexes[is_hit].tolist(), strict=True):
            yield names.digest(position).hex(), pack, member


def _load_members(found: Candidates, load: Load) -> Iterator[tuple[Pack, Ids, Ids]]:
    """Yield the candidates that have not left their packs, pack by pack.

    Yields:
        The pack, the ascending indexes of the requests in the pack, and the indexes of the wanted requests.
    """
    if not len(found.indexes):
        return
    # The latest pack first: an earlier one may have been deleted.
    order = np.lexsort((found.places, -found.pack_ids))
    pack_ids, places, indexes = found.pack_ids[order], found.places[order], found.indexes[order]
    starts = np.flatnonzero(np.diff(pack_ids, prepend=-1)).tolist()
    bounds = list(pairwise([*starts, len(pack_ids)]))
    for start in range(0, len(bounds), _BATCH):
        batch = bounds[start : start + _BATCH]
        packs = load(pack_ids[[first for first, _ in batch]].tolist())
        for first, end in batch:
            if pack := packs.get(int(pack_ids[first])):
                members = _find_members(pack, places[first:end])
                yield pack, members[members >= 0], indexes[first:end][members >= 0]


def _to_range(numbers: Ids) -> Sequence[int]:
    """Return numbers as a range if each follows the number before, otherwise as a list; at least one number."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first == len(numbers) - 1 and (np.diff(numbers) == 1).all():
        return range(first, last + 1)
    numbers_list: list[int] = numbers.tolist()
    return numbers_list


def _places(pack: Pack) -> Ids:
    """Return the ids of a pack's requests, less the id of the pack."""
    return np.arange(len(pack)) if pack.places is None else np.asarray(pack.places, dtype=np.int64)


def _find_members(pack: Pack, places: Ids) -> Ids:
    """Return the index of the request at each place of a pack; -1 for a request that has left the pack."""
    existing = _places(pack)
    indexes = np.minimum(np.searchsorted(existing, places), len(existing) - 1)
    return np.where(existing[indexes] == places, indexes, -1)


def _take(occurrences: Sequence[int] | None, indexes: Ids) -> Keys | int:
    """Return the occurrence numbers at some indexes; `None` stands for zeros."""
    return 0 if occurrences is None else np.asarray(occurrences, dtype=np.uint64)[indexes]


def _halves(digests: bytes) -> Keys:
    """Return the two halves of each digest as numbers."""
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
