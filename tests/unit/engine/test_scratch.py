"""Bodies on the disk."""

from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.scratch import Spool


@given(texts=st.lists(st.binary(max_size=50), max_size=20), order=st.randoms())
def test_what_was_added_is_read_again_in_any_order(tmp_path_factory, texts, order):
    """Also while more is added."""
    spool = Spool(tmp_path_factory.mktemp("spool") / "bodies")
    kept = []
    for text in texts:
        kept.append((spool.add(text), text))
        spooled, expected = order.choice(kept)
        assert bytes(spooled) == expected
        assert len(spooled) == len(expected)
    order.shuffle(kept)
    assert [bytes(spooled) for spooled, _ in kept] == [text for _, text in kept]
    spool.close()


def test_a_request_knows_the_size_of_its_line(tmp_path):
    """Wherever its body is."""
    spool = Spool(tmp_path / "bodies")
    for body in (b'{"a":1}', spool.add(b'{"a":1}')):
        request = Request("0-0", "/v1/chat/completions", "m", body)
        assert request.size == len(request.line())
        assert request.line().endswith(b'"body":{"a":1}}\n')
    spool.close()
