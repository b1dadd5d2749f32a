"""The pages of the list of batches, and the search in them."""

from __future__ import annotations

import logging

import httpx
import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batch_list import BatchList
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.transport import Patience, TransientError, Transport, sdk_client
from tests.support.batch_api import API_KEY, BASE_URL, NOW, batch, listing, refusal, reply


@pytest.fixture
async def batch_list():
    async with sdk_client(BASE_URL, API_KEY, timeout=1.0) as client:
        yield BatchList(Transport(client, Patience(), logging.getLogger("batch_list")))


@pytest.fixture
def pages(server):
    return server.get("/batches")


async def ids_since(batch_list: BatchList, time: float) -> list[str]:
    """Return the ids of the batches since a time."""
    return [batch.id async for batch in batch_list.since(time)]


def keyed(batch_id: str, status: str = "in_progress", key: str = "the-key", **fields: object) -> dict[str, object]:
    """Return a batch with a key in its metadata."""
    return batch(batch_id, status, metadata={KEY_METADATA: key}, **fields)


async def test_pages_are_read_from_the_last_batch_of_the_page_before(batch_list, pages):
    pages.mock(side_effect=[listing(batch("a"), batch("b")), listing(batch("c")), listing()])
    assert await ids_since(batch_list, NOW) == ["a", "b", "c"]
    assert [call.request.url.params.get("after") for call in pages.calls] == [None, "b", "c"]
    assert {call.request.url.params["limit"] for call in pages.calls} == {"100"}


async def test_reading_stops_at_batches_older_than_the_time(batch_list, pages):
    """The clocks of client and server may disagree by an hour."""
    pages.mock(side_effect=[listing(batch("a"), batch("b", created_at=NOW - 3_601))])
    assert await ids_since(batch_list, NOW) == ["a", "b"]
    assert pages.call_count == 1


async def test_reading_goes_on_if_the_oldest_batches_come_first(batch_list, pages):
    old = [batch("a", created_at=NOW - 9_000), batch("b", created_at=NOW - 8_000)]
    pages.mock(side_effect=[listing(*old), listing(batch("c")), listing()])
    assert await ids_since(batch_list, NOW) == ["a", "b", "c"]


async def test_reading_stops_if_the_server_ignores_the_cursor(batch_list, pages):
    pages.mock(return_value=listing(batch("a"), batch("b")))
    assert await ids_since(batch_list, NOW) == ["a", "b", "a", "b"]
    assert pages.call_count == 2


@pytest.mark.parametrize("status_code", [404, 405, 501])
async def test_a_server_without_a_list_is_asked_once(batch_list, pages, status_code):
    pages.mock(return_value=refusal(status_code))
    assert batch_list.is_supported
    assert await batch_list.page() == []
    assert not batch_list.is_supported
    assert await ids_since(batch_list, NOW) == []
    assert await batch_list.find("the-key", "file-1", NOW) is None
    assert pages.call_count == 1


@pytest.mark.parametrize(("seconds", "is_searchable"), [(25.0, True), (-1.0, False)])
async def test_a_list_that_stays_empty_is_not_searched(batch_list, pages, monkeypatch, seconds, is_searchable):
    """A gateway without jobs of its own answers with an empty list; a new batch may be listed late."""
    pages.mock(return_value=listing())
    assert await batch_list.find("the-key", "file-1", NOW) is None
    assert batch_list.is_searchable
    batch_list.note_batch()
    monkeypatch.setattr("distilabel_openai_batch.api.batch_list._LISTED_SECONDS", seconds)
    assert await batch_list.find("the-key", "file-1", NOW) is None
    assert batch_list.is_searchable is is_searchable


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(refusal(401), errors.AuthenticationError), (httpx.Response(503), TransientError), (reply({}), TransientError)],
)
async def test_other_failures_of_a_page_are_raised(batch_list, pages, failure, kind):
    pages.mock(return_value=failure)
    with pytest.raises(kind):
        await batch_list.page()
    assert batch_list.is_supported


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_the_search_prefers_a_batch_that_is_not_cancelled(batch_list, pages, cancelled_first):
    batches = [keyed("cancelled", "cancelling"), keyed("running"), keyed("other", key="other-key")]
    pages.mock(return_value=listing(*batches[:: 1 if cancelled_first else -1]))
    found = await batch_list.find("the-key", "file-1", NOW)
    assert found is not None
    assert found.id == "running"


async def test_the_search_returns_a_cancelled_batch_if_there_is_no_other(batch_list, pages):
    pages.mock(side_effect=[listing(keyed("cancelled", "cancelled")), listing()])
    found = await batch_list.find("the-key", "file-1", NOW)
    assert found is not None
    assert found.id == "cancelled"


@pytest.mark.parametrize(
    ("fields", "is_found"),
    [
        ({}, True),
        ({"status": "failed"}, False),
        ({"input_file_id": "file-2"}, False),
        ({"metadata": {"project": "demo"}}, False),
    ],
    ids=["without metadata", "rejected", "another file", "with other metadata"],
)
async def test_a_batch_without_metadata_is_found_by_its_input_file(batch_list, pages, fields, is_found):
    """A rejected batch may share its input file with the batch of the next attempt."""
    pages.mock(side_effect=[listing(batch("a") | fields), listing()])
    assert (await batch_list.find("the-key", "file-1", NOW) is not None) is is_found
