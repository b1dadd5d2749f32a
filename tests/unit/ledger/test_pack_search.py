"""Search for requests in packs: the index, runs of requests, and single requests."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger import pack_index, packs
from distilabel_openai_batch.ledger.pack_index import PackIndex
from distilabel_openai_batch.ledger.pack_search import PackSearch, search_digests
from distilabel_openai_batch.ledger.packs import PACK_SIZE, Pack, PackedNames, find_member
from tests.unit.ledger.samples import make_names


def test_two_digests_with_one_key_are_told_apart():
    """Digests may begin alike: the key has 40 bits of a digest."""
    digests = [f"{'0' * 11}{place:021x}" for place in range(50)]
    names = [f"{digest}-0" for digest in digests]
    packs_by_id = {}
    for pack_id, part in ((1_000, names), (2_000, names[:30]), (3_000, names[30:])):
        [(blob, occurrences)] = PackedNames.of(part).cut(PACK_SIZE)
        packs_by_id[pack_id] = Pack(pack_id, 1, True, False, None, blob, occurrences, None, None)
    index = PackIndex(1)
    index.refresh(lambda sql, parameters: [(pack.id, pack.digests, None, None) for pack in packs_by_id.values()])
    # The first pack was deleted.
    del packs_by_id[1_000]
    random.Random(3).shuffle(names)
    hits = list(PackSearch(names, index, lambda ids: {id_: packs_by_id[id_] for id_ in ids if id_ in packs_by_id}))
    found = {
        name: hit.pack.custom_id(place) for hit in hits for name, place in zip(hit.custom_ids, hit.indexes, strict=True)
    }
    assert found == {name: name for name in names}
    assert sum(len(hit.indexes) for hit in hits) == len(names)


def test_a_deleted_pack_is_not_found():
    [(blob, _)] = PackedNames.of(make_names(3)).cut(PACK_SIZE)
    index = PackIndex(1)
    index.refresh(lambda sql, parameters: [(1_000, blob, None, None)])
    assert list(PackSearch(make_names(3), index, lambda ids: {})) == []


def test_an_index_finds_each_of_many_packs():
    names = make_names(500)
    random.Random(1).shuffle(names)
    table = {}
    index = PackIndex(1)
    for place, start in enumerate(range(0, 500, 20)):
        [(blob, _)] = PackedNames.of(names[start : start + 20]).cut(PACK_SIZE)
        pack_id = PACK_SIZE * (place + 1)
        table[pack_id] = Pack(pack_id, 1, True, False, None, blob, None, None, None)
        index.refresh(lambda sql, parameters, row=(pack_id, blob, None, None): [row])
    hits = list(PackSearch([*make_names(500), *make_names(9, 1)], index, lambda ids: {i: table[i] for i in ids}))
    assert sorted(name for hit in hits for name in hit.custom_ids) == sorted(names)
    # Runs are merged, so a search visits few of them.
    assert len(index._runs) < 6


SEARCHED = [*make_names(150), *make_names(40, 1), *make_names(60, start=150)]
LEFT = {3, 120, 121, 249}
ORDERS = {
    "as planned": SEARCHED,
    "from the middle of a pack to the middle of the next": SEARCHED[40:170],
    "without a request in the middle": [*SEARCHED[:50], *SEARCHED[51:]],
    "without the requests that left": [name for place, name in enumerate(SEARCHED) if place not in LEFT],
    "with unknown requests between": [*SEARCHED[:70], *make_names(5, start=900), *SEARCHED[70:]],
    "with names of another form between": [*SEARCHED[:70], "a-0", "b-1", *SEARCHED[70:]],
    "with another occurrence at the end of a run": [*SEARCHED[:60], *make_names(30, 2, start=60), *SEARCHED[90:]],
    "twice": [*SEARCHED, *SEARCHED],
    "each request twice": [name for name in SEARCHED for _ in range(2)],
    "backwards": SEARCHED[::-1],
    "second half first": [*SEARCHED[110:], *SEARCHED[:110]],
    "in short runs": [name for start in range(0, 250, 10) for name in SEARCHED[240 - start : 250 - start]],
    "in a random order": random.Random(7).sample(SEARCHED, len(SEARCHED)),
    "unknown": make_names(100, start=900),
    "none": [],
}


@pytest.mark.parametrize("size", [40, 100, 250])
@pytest.mark.parametrize("order", ORDERS)
def test_requests_in_any_order_are_found_in_their_packs(order, size):
    """The expected members come from a table of all requests."""
    table, expected = {}, {}
    for number, start in enumerate(range(0, len(SEARCHED), size), 1):
        names = SEARCHED[start : start + size]
        [(blob, numbers)] = PackedNames.of(names).cut(PACK_SIZE)
        kept = [place for place in range(len(names)) if start + place not in LEFT]
        pack = Pack(PACK_SIZE * number, 1, False, False, None, blob, numbers, None, None).select(kept)
        table[pack.id] = pack if len(kept) < len(names) else replace(pack, places=None)
        expected |= {name: (pack.id, index) for index, name in enumerate(table[pack.id].custom_ids())}
    rows = [
        (pack.id, pack.digests, packs.pack_numbers(pack.occurrences), packs.pack_numbers(pack.places))
        for pack in table.values()
    ]
    index = PackIndex(1)
    index.refresh(lambda sql, parameters: rows)
    search = PackSearch(ORDERS[order], index, lambda ids: {id_: table[id_] for id_ in ids})
    found = [
        (name, (hit.pack.id, place)) for hit in search for name, place in zip(hit.custom_ids, hit.indexes, strict=True)
    ]
    assert sorted(found) == sorted((name, expected[name]) for name in ORDERS[order] if name in expected)
    assert list(search.others()) == [name for name in ORDERS[order] if name not in expected]


def test_requests_in_the_order_of_their_packs_load_each_pack_once():
    names = make_names(5_000)
    table = {}
    for start in range(0, 5_000, PACK_SIZE):
        [(blob, _)] = PackedNames.of(names[start : start + PACK_SIZE]).cut(PACK_SIZE)
        table[start] = Pack(start, 1, False, False, None, blob, None, None, None).select(sorted({*range(1_000)} - {7}))
    index = PackIndex(1)
    index.refresh(
        lambda sql, parameters: [
            (id_, pack.digests, None, packs.pack_numbers(pack.places)) for id_, pack in table.items()
        ]
    )
    loaded = []

    def load(ids):
        loaded.extend(ids)
        return {id_: table[id_] for id_ in ids}

    hits = list(PackSearch(names, index, load))
    assert loaded == [hit.pack.id for hit in hits] == [*table]
    assert all(hit.indexes == range(999) for hit in hits)


@pytest.mark.parametrize("highest", [0, 1, 5, 2**20 - 1])
def test_all_occurrences_of_a_digest_are_found(highest):
    """The digests differ in the bits that occurrence numbers change in a key."""
    digests = [f"{'7' * 5}{place:05x}{'0' * 22}" for place in range(16)]
    numbers = sorted({0, highest // 2, highest})
    names = [f"{digest}-{number}" for digest in digests[:12] for number in numbers]
    random.Random(4).shuffle(names)
    table = {}
    index = PackIndex(1)
    for start in range(0, len(names), 5):
        [(blob, occurrences)] = PackedNames.of(names[start : start + 5]).cut(PACK_SIZE)
        pack = Pack((start + 1) * PACK_SIZE, 1, False, False, None, blob, occurrences, None, None)
        table[pack.id] = pack
        index.refresh(
            lambda sql, parameters, pack=pack: [(pack.id, pack.digests, packs.pack_numbers(pack.occurrences), None)]
        )
    wanted = ["x", *digests[::-1]]
    found = search_digests(wanted, index, lambda ids: {id_: table[id_] for id_ in ids})
    members = [(digest, pack.custom_id(place)) for digest, pack, place in found]
    assert sorted(members) == sorted((name[:32], name) for name in names)
    for digest in digests:
        candidates = index.find_digest(bytes.fromhex(digest))
        pairs = [find_member(table, request_id) for request_id in candidates]
        same = [pack.custom_id(place) for pack, place in pairs if pack.digest(place).hex() == digest]
        assert sorted(same) == sorted(name for name in names if name[:32] == digest)


def test_digests_are_found_in_no_pack_of_an_empty_scope():
    assert list(search_digests(["a", "7" * 32], PackIndex(1), lambda ids: {})) == []


@pytest.mark.parametrize("full", [1, 2, 5])
def test_a_full_run_of_the_index_is_merged_no_more(monkeypatch, full):
    """An entry has few bits for the place of its pack in a run."""
    monkeypatch.setattr(pack_index, "_MAX_RUN_PACKS", full)
    monkeypatch.setattr(pack_index, "_BATCH", 2)
    names = make_names(120)
    table = {}
    for start in range(0, 120, 10):
        [(blob, _)] = PackedNames.of(names[start : start + 10]).cut(PACK_SIZE)
        table[100 * start] = Pack(100 * start, 1, False, False, None, blob, None, None, None)
    index = PackIndex(1)
    for last in (3_000, 7_000, 12_000):
        rows = [
            (pack_id, pack.digests, None, None) for pack_id, pack in table.items() if last - 5_000 < pack_id <= last
        ]
        index.refresh(lambda sql, parameters, rows=rows: [row for row in rows if row[0] > parameters[1]])
    random.Random(2).shuffle(names)
    hits = PackSearch(names, index, lambda ids: {id_: table[id_] for id_ in ids})
    found = [hit.pack.custom_id(place) for hit in hits for place in hit.indexes]
    assert sorted(found) == sorted(names)
    assert max(len(run.pack_ids) for run in index._runs) <= full
