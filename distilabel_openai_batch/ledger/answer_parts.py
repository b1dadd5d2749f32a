"""Result lines of the answers in packs, some dozens in one row of the table `answer_parts`."""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

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

_SELECT = "SELECT id, compression, lengths, lines FROM answer_parts WHERE id IN (SELECT value FROM json_each(?))"

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
    for start, end in _cut(lines):
        ids = request_ids[start:end]
        lengths = array("I", map(len, lines[start:end]))
        if ids[-1] - ids[0] >= len(ids):
            lengths = array("I", bytes(4 * (ids[-1] - ids[0] + 1)))
            for request_id, line in zip(ids, lines[start:end], strict=True):
                lengths[request_id - ids[0]] = len(line)
        text = b"".join(lines[start:end])
        columns = (ids[0], _ZLIB if is_compressed else None, pack_numbers(lengths))
        database.execute(_INSERT, (*columns, zlib.compress(text, 1) if is_compressed else text))


def read_lines(query: Query, request_ids: Sequence[int]) -> dict[int, bytes]:
    """Return result lines by the ids of their requests; leave out lines that the ledger does not have.

    Args:
        query: runs a statement.
        request_ids: ids of answered requests in packs, in any order.
    """
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for request_id in request_ids:
        wanted[first_id(request_id)].append(request_id)
    found: dict[int, bytes] = {}
    for pack_id, ids in wanted.items():
        found |= _read_lines_of_pack(query, pack_id, ids)
    return found


def read_pack_lines(query: Query, pack_id: int, places: Sequence[int]) -> list[bytes | None]:
    """Return result lines of a pack; `None` for lines that the ledger does not have.

    Args:
        query: runs a statement.
        pack_id: the id of the pack.
        places: the ids of the requests, less the id of the pack.
    """
    first, last = min(places), max(places)
    if 2 * len(places) < last - first:
        found = _read_lines_of_pack(query, pack_id, [pack_id + place for place in places])
        return [found.get(pack_id + place) for place in places]
    lines: list[bytes] = [b""] * first
    for part_id, compression, lengths, text in query(_SELECT_SPAN, (pack_id, pack_id + first, pack_id + last)):
        start = part_id - pack_id
        lines += [b""] * (start - len(lines))
        lines[start:] = _split(_decompress(text, compression), lengths)
    lines += [b""] * (last + 1 - len(lines))
    return [lines[place] or None for place in places]


def delete_lines(database: sqlite3.Connection, pack_id: int) -> None:
    """Delete the result lines of a pack's answers."""
    database.execute(_DELETE, (pack_id, pack_id + PACK_SIZE - 1))


def _read_lines_of_pack(query: Query, pack_id: int, request_ids: Sequence[int]) -> dict[int, bytes]:
    part_ids = [part_id for (part_id,) in query(_SELECT_IDS, (pack_id, pack_id + PACK_SIZE - 1))]
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for request_id in request_ids:
        if index := bisect_right(part_ids, request_id):
            wanted[part_ids[index - 1]].append(request_id)
    found: dict[int, bytes] = {}
    for part_id, compression, lengths, lines in query(_SELECT, (orjson.dumps(list(wanted)).decode(),)):
        text = _decompress(lines, compression)
        starts = [0, *accumulate(unpack_numbers("I", lengths))]
        for request_id in wanted[part_id]:
            place = request_id - part_id
            if place + 1 < len(starts) and starts[place] < starts[place + 1]:
                found[request_id] = text[starts[place] : starts[place + 1]]
    return found


def _decompress(lines: bytes, compression: str | None) -> bytes:
    return zlib.decompress(lines) if compression == _ZLIB else lines


def _split(lines: bytes, lengths: bytes) -> list[bytes]:
    """Return each line of a part; an empty line stands for a request that had left the pack."""
    return [lines[start:end] for start, end in pairwise(accumulate(unpack_numbers("I", lengths), initial=0))]


def _cut(lines: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of parts of about `_PART_BYTES` bytes."""
    start, size = 0, 0
    for index, line in enumerate(lines):
        size += len(line)
        if size >= _PART_BYTES:
            yield start, index + 1
            start, size = index + 1, 0
    if start < len(lines):
        yield start, len(lines)
