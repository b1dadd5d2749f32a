"""Digests and `custom_id`s of many requests in little memory."""

from __future__ import annotations

import tracemalloc
from hashlib import blake2b

from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.engine.compact_ids import CustomIdList, DigestSet


def digest(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


DIGESTS = st.lists(st.integers(0, 60).map(digest), max_size=30)

NAMES = st.one_of(
    st.integers().map(lambda number: f"{digest(number)}-0"),
    st.builds(lambda number, occurrence: f"{digest(number)}-{occurrence}", st.integers(), st.integers(1, 20)),
    # Texts of the same length, and of the same length without "-0".
    st.sampled_from(["a", "", "0" * 34, "-0" * 17, "A" * 32 + "-0", " " * 32 + "-0", "-0" + "0" * 30 + "-0", "0" * 32]),
)


@given(additions=st.lists(DIGESTS, max_size=12))
@settings(max_examples=50)
def test_a_set_knows_the_digests_that_were_added(additions):
    used, seen = DigestSet(max_latest=20), []
    for digests in additions:
        again = used.add(bytes.fromhex("".join(digests)))
        assert again == {index for index, each in enumerate(digests) if each in [*seen, *digests[:index]]}
        seen += digests


@given(extensions=st.lists(st.lists(NAMES, max_size=5), max_size=5), start=st.integers(-9, 9), stop=st.integers(-9, 9))
@settings(max_examples=100)
def test_a_list_has_the_custom_ids_that_were_appended(extensions, start, stop):
    custom_ids = CustomIdList()
    for extension in extensions:
        custom_ids.extend(extension)
    assert sorted(custom_ids) == sorted(name for extension in extensions for name in extension)
    assert [*custom_ids[start:stop]] == [*custom_ids][start:stop]
    assert [*custom_ids[start:][stop:]] == [*custom_ids][start:][stop:]
    assert custom_ids[stop:start:-2] == [*custom_ids][stop:start:-2]


def test_the_digests_and_the_custom_ids_of_a_run_take_few_bytes_each():
    count = 20_000
    tracemalloc.start()
    try:
        used, delivered = DigestSet(), CustomIdList()
        for start in range(0, count, 1_000):
            digests = [digest(number) for number in range(start, start + 1_000)]
            used.add(bytes.fromhex("".join(digests)))
            delivered.extend([f"{each}-0" for each in digests])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(delivered) == count
    assert kept < 60 * count
