"""Result lines of the answers in packs, some dozens in one row of the table `answer_parts`."""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import orjson

from distilabel_openai_batch.ledger.packs import PACK_SIZE, Query, first_id, pack_numbers, unpack_numbers

# Bytes of lines in a part, about. SQLite leaves half of the last page of 8,192 bytes empty: 6 % of a part. One answer
# is read together with its part.
_PART_BYTES = 65_536

_ZLIB = "zlib"

_INSERT = "INSERT INTO answer_parts (id, compression, lengths, lines) VALUES (?, ?, ?, ?)"

_SELECT_IDS = "SELECT id FROM answer_parts WHERE id BETWEEN ? AND ? ORDER BY id"

# From the part that has the first of the wanted lines.
_SELECT_SPAN = """
    SELECT id, compression, lengths, lines FROM answer_parts
    WHERE id BETWEEN (SELECT coalesce(max(id), ?2) FROM answer_parts WHERE id BETWEEN ?1 AND ?2) AND ?3
    ORDER BY id
"""

_SELECT = """
    SELECT id, compression, lengths, lines FROM answer_parts WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id
"""

_DELETE = "DELETE FROM answer_parts WHERE id BETWEEN ? AND ?"


def insert_lines(
    database: sqlite3.Connection, request_ids: Sequence[int], lines: Sequence[bytes], *, is_compressed: bool
) -> None:
    """Insert the result lines of a pack's answers.

    Args:
        database: SQLite's connection, in a transaction.
        request_ids: the ids of the requests, ascending.
        lines: the result line of each request.
        is_compressed: whether to compress the lines.
    """
    sizes = array("I", map(len, lines))
    for start, end in _cut(sizes):
        ids = request_ids[start:end]
        lengths = sizes[start:end]
        if ids[-1] - ids[0] >= len(ids):
            lengths = array("I", bytes(4 * (ids[-1] - ids[0] + 1)))
            for request_id, size in zip(ids, sizes[start:end], strict=True):
                lengths[request_id - ids[0]] = size
        text = b"".join(lines[start:end])
        columns = (ids[0], _ZLIB if is_compressed else None, pack_numbers(lengths))
        database.execute(_INSERT, (*columns, zlib.compress(text, 1) if is_compressed else text))


def read_lines(query: Query, request_ids: Sequence[int]) -> dict[int, bytes]:
    """Return result lines by the ids of their requests; leave out lines that the ledger does not have.

    Args:
        query: runs a statement.
        request_ids: ids of answered requests in packs, in any order.
    """
    places: defaultdict[int, list[int]] = defaultdict(list)
    for request_id in sorted(request_ids):
        places[first_id(request_id)].append(request_id - first_id(request_id))
    found: dict[int, bytes] = {}
    for pack_id, wanted in places.items():
        lines = chain.from_iterable(read_pack_lines(query, pack_id, wanted))
        found |= {pack_id + place: line for place, line in zip(wanted, lines, strict=True) if line}
    return found


def read_pack_lines(query: Query, pack_id: int, places: Sequence[int]) -> Iterator[list[bytes]]:
    """Yield result lines of a pack, part by part. An empty line stands for a line that the ledger does not have.

    Args:
        query: runs a statement.
        pack_id: the id of the pack.
        places: the ids of the requests, less the id of the pack, ascending; at least one. A range takes the least time.
    """
    read = 0
    for part_id, compression, lengths, lines in _read_parts(query, pack_id, places):
        start = part_id - pack_id
        edges = [*accumulate(unpack_numbers("I", lengths), initial=0)]
        first = bisect_left(places, start, read)
        end = bisect_left(places, start + len(edges) - 1, first)
        yield [b""] * (first - read)
        text = zlib.decompress(lines) if compression == _ZLIB else lines
        wanted = places[first:end]
        if isinstance(wanted, range):
            bounds = pairwise(edges[wanted.start - start : wanted.stop - start + 1])
            yield [text[begin:stop] for begin, stop in bounds]
        else:
            yield [text[edges[place - start] : edges[place - start + 1]] for place in wanted]
        read = end
    yield [b""] * (len(places) - read)


def delete_lines(database: sqlite3.Connection, pack_id: int) -> None:
    """Delete the result lines of a pack's answers."""
    database.execute(_DELETE, (pack_id, pack_id + PACK_SIZE - 1))


def _read_parts(query: Query, pack_id: int, places: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    """Return the rows of the parts that may have the lines of requests in a pack, ascending."""
    first, last = pack_id + places[0], pack_id + places[-1]
    if 2 * len(places) > last - first:
        return query(_SELECT_SPAN, (pack_id, first, last))
    part_ids = [part_id for (part_id,) in query(_SELECT_IDS, (pack_id, pack_id + PACK_SIZE - 1))]
    wanted = {bisect_right(part_ids, pack_id + place) for place in places} - {0}
    return query(_SELECT, (orjson.dumps([part_ids[index - 1] for index in wanted]).decode(),))


def _cut(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of parts of about `_PART_BYTES` bytes, by the bytes of each line."""
    edges, start = [*accumulate(sizes, initial=0)], 0
    while start < len(sizes):
        # The line that fills the part is its last line.
        end = min(bisect_left(edges, edges[start] + _PART_BYTES, start), len(sizes))
        yield start, end
        start = end
