"""Packs of the ledger, for readers without a session."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

import orjson

from distilabel_openai_batch.ledger.answer_parts import read_lines
from distilabel_openai_batch.ledger.packs import (
    SELECT_PACKS,
    SELECT_PACKS_AFTER,
    Pack,
    Query,
    find_member,
    find_members,
    first_id,
)

# Packs per query: some dozens of kilobytes each.
_CHUNK = 16

_SIZES = "SELECT id, size FROM packs WHERE scope = ?"

_LAST_PACK = "SELECT max(id) FROM packs"

_DROPPED = "SELECT id FROM jobs WHERE scope = ? AND state = 'dropped'"


class PackReader:
    """The table `packs`, for reading.

    Args:
        query: runs a statement.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def packs(self, scope_id: int, start: int = 0, *, answered: bool | None = None) -> Iterator[Pack]:
        """Yield the packs of a scope, in the order of the plan.

        Args:
            scope_id: the id of the scope's row.
            start: the lowest id of a pack.
            answered: whether the requests of the packs are answered; `None` for all packs.
        """
        after = start - 1
        while rows := list(self._query(SELECT_PACKS_AFTER, (scope_id, after, answered, _CHUNK))):
            for row in rows:
                yield Pack.of_row(row)
            after = rows[-1][0]

    def answers(self, scope_id: int) -> Iterator[tuple[int, Pack, int, bytes]]:
        """Yield the answers of a scope: the id of the request, its pack, its index and its result line."""
        for pack in self.packs(scope_id, answered=True):
            lines = read_lines(self._query, pack.request_ids)
            for index, request_id in enumerate(pack.request_ids):
                # A session may have deleted the pack meanwhile.
                if line := lines.get(request_id):
                    yield request_id, pack, index, line

    def find(self, request_ids: Sequence[int]) -> dict[int, tuple[Pack, int]]:
        """Return the pack and the index of requests by their ids; leave out requests that are in no pack."""
        packs = {pack.id: pack for pack in self._load(set(map(first_id, request_ids)))}
        members = ((request_id, find_member(packs, request_id)) for request_id in request_ids)
        return {request_id: member for request_id, member in members if member}

    def find_ids(self, scope_id: int, after: int, limit: int, *, answered: bool | None = None) -> list[int]:
        """Return the ids of the next requests in packs.

        Args:
            scope_id: the id of the scope's row.
            after: the id behind which the requests begin.
            limit: the number of requests, at most.
            answered: whether the requests are answered; `None` for all requests.
        """
        ids: list[int] = []
        for pack in self.packs(scope_id, first_id(after + 1), answered=answered):
            ids += [request_id for request_id in pack.request_ids if request_id > after]
            if len(ids) >= limit:
                break
        return ids[:limit]

    def search(
        self, scope_id: int, after: int, until: int, text: str, *, answered: bool | None = None
    ) -> Iterator[tuple[int, str, bool]]:
        """Yield requests: the id, the `custom_id`, and whether that or the result line contains a text.

        Capital and small letters of ASCII are not told apart, as by `LIKE` in SQLite.

        Args:
            scope_id: the id of the scope's row.
            after: the id behind which the requests begin.
            until: the id of the last request.
            text: the text. In result lines, its letters may be escaped as JSON.
            answered: whether the requests are answered; `None` for all requests.
        """
        parts = {
            json.dumps(text, ensure_ascii=is_ascii)[1:-1].encode(errors="replace").lower() for is_ascii in (True, False)
        }
        for pack in self.packs(scope_id, first_id(after + 1), answered=answered):
            if pack.id > until:
                return
            ids = [request_id for request_id in pack.request_ids if after < request_id <= until]
            lines = read_lines(self._query, ids) if pack.is_answered else {}
            for request_id, custom_id in zip(pack.request_ids, pack.custom_ids(), strict=True):
                if after < request_id <= until:
                    line = lines.get(request_id, b"").lower()
                    yield request_id, custom_id, text.lower() in custom_id or any(part in line for part in parts)

    def count_by_pack(self, scope_id: int) -> Counter[int]:
        """Return the number of requests in each pack of a scope, by the id of the pack."""
        return Counter(dict(self._query(_SIZES, (scope_id,))))

    def count_until(self, scope_id: int, request_ids: Sequence[int]) -> list[int]:
        """Return the number of requests in a scope's packs up to each of some ids, in rows or in packs."""
        sizes = sorted(self.count_by_pack(scope_id).items())
        pack_ids, totals = [pack_id for pack_id, _ in sizes], [0, *accumulate(size for _, size in sizes)]
        packs = {pack.id: pack for pack in self._load(set(map(first_id, request_ids)))}
        counts = []
        for request_id in request_ids:
            count = totals[bisect_left(pack_ids, first_id(request_id))]
            if pack := packs.get(first_id(request_id)):
                count += bisect_right(pack.request_ids, request_id)
            counts.append(count)
        return counts

    def find_submitted(self, scope_id: int, custom_ids: Sequence[str]) -> set[str]:
        """Return the requests that have an answer, or are pending in a job that was not dropped."""
        dropped = {job_id for (job_id,) in self._query(_DROPPED, (scope_id,))}
        members = find_members(self.packs(scope_id), custom_ids)
        return {name for name, pack, _ in members if pack.is_answered or pack.job not in dropped}

    def last_id(self) -> int:
        """Return the highest id of a request in a pack; 0 without packs."""
        for (pack_id,) in self._query(_LAST_PACK, ()):
            for pack in self._load([pack_id]):
                return pack.request_ids[-1]
        return 0

    def _load(self, pack_ids: Collection[int]) -> list[Pack]:
        return list(map(Pack.of_row, self._query(SELECT_PACKS, (orjson.dumps(list(pack_ids)).decode(),))))
