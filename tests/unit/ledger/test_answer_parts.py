"""Result lines of packs in parts."""

from __future__ import annotations

import sqlite3
from itertools import chain

import pytest

from distilabel_openai_batch.ledger import answer_parts
from distilabel_openai_batch.ledger.answer_parts import insert_lines, read_lines, read_pack_lines
from distilabel_openai_batch.ledger.schema import migrate

PACK = 3_000
LEFT = {0, 7, 31, 32, 33, 99}


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def database(request, monkeypatch):
    """The lines of a pack of 100 requests, some of which had left, in parts of about five."""
    monkeypatch.setattr(answer_parts, "_PART_BYTES", 100)
    database = sqlite3.connect(":memory:", isolation_level=None)
    migrate(database)
    ids = [PACK + place for place in range(100) if place not in LEFT]
    insert_lines(database, ids, [line(id_ - PACK) for id_ in ids], is_compressed=request.param)
    yield database
    database.close()


def line(place: int) -> bytes:
    return b"%d:%b" % (place, b"x" * (place % 37))


@pytest.mark.parametrize(
    "places",
    [range(100), range(1), range(40, 60), [3], [2, 98], [*range(0, 100, 2)], [*range(20, 70, 3)], [5, 5, 6]],
    ids=str,
)
def test_wanted_lines_are_read_in_their_order(database, places):
    lines = [*chain.from_iterable(read_pack_lines(database.execute, PACK, places))]
    assert lines == [b"" if place in LEFT else line(place) for place in places]


@pytest.mark.parametrize("places", [range(100), range(30, 80), [4, 50, 90]], ids=str)
def test_a_lost_part_costs_its_lines_alone(database, places):
    part_ids = [id_ for (id_,) in database.execute("SELECT id FROM answer_parts ORDER BY id")]
    lost = range(part_ids[3], part_ids[5])
    database.execute("DELETE FROM answer_parts WHERE id IN (?, ?)", (part_ids[3], part_ids[4]))
    lines = [*chain.from_iterable(read_pack_lines(database.execute, PACK, places))]
    assert lines == [b"" if place in LEFT or PACK + place in lost else line(place) for place in places]


def test_lines_are_found_by_the_ids_of_requests_in_any_order(database):
    insert_lines(database, range(5_000, 5_010), [line(place) for place in range(10)], is_compressed=False)
    ids = [5_003, PACK + 20, PACK + 7, 5_001, 8_000, PACK + 2]
    found = {5_003: line(3), PACK + 20: line(20), 5_001: line(1), PACK + 2: line(2)}
    assert read_lines(database.execute, ids) == found
