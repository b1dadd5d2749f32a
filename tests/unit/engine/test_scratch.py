"""Scratch files, and request bodies on the disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.scratch import BodyStore, scratch_file


@given(bodies=st.lists(st.binary(max_size=50), max_size=20), order=st.randoms())
def test_stored_bodies_are_read_in_any_order(tmp_path_factory, bodies, order):
    """Bodies can be read while others are added."""
    store = BodyStore(tmp_path_factory.mktemp("store") / "bodies")
    added = []
    for body in bodies:
        added.append((store.add(body), body))
        stored, expected = order.choice(added)
        assert bytes(stored) == expected
        assert len(stored) == len(expected)
    order.shuffle(added)
    assert [bytes(stored) for stored, _ in added] == [body for _, body in added]
    store.close()


def test_the_size_of_a_request_is_the_size_of_its_line(tmp_path):
    """The body may be in memory or on the disk."""
    store = BodyStore(tmp_path / "bodies")
    for body in (b'{"a":1}', store.add(b'{"a":1}')):
        request = Request("0-0", "/v1/chat/completions", "m", body)
        assert request.size == len(request.line())
        assert request.line().endswith(b'"body":{"a":1}}\n')
    store.close()


@pytest.mark.parametrize("is_written", [True, False])
def test_a_scratch_file_is_deleted_at_the_end_of_the_context(tmp_path, is_written):
    with scratch_file(tmp_path / "file") as path:
        if is_written:
            path.write_bytes(b"text")
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_file_is_deleted_after_an_error(tmp_path):
    def fail() -> None:
        with scratch_file(tmp_path / "file") as path:
            path.write_bytes(b"text")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []
