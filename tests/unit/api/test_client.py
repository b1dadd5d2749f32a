"""Polls, searches and cancellations of `BatchAPI`."""

from __future__ import annotations

import httpx
import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.client import BATCH_VISIBLE_SECONDS
from tests.support.batch_api import CALLS, NOW, batch, calls_made, listing, refusal, reply

# Polls.


async def test_a_poll_of_one_batch_is_one_call(api, server):
    """The list is not used."""
    content = batch(status="COMPLETED", output_file_id="file-2", error_file_id="", request_counts=None)
    CALLS["retrieve"].route(server).mock(return_value=reply(content))
    found = await api.retrieve_many({"batch_1"})
    assert {key: value.status for key, value in found.items()} == {"batch_1": "completed"}
    assert (found["batch_1"].output_file_id, found["batch_1"].error_file_id) == ("file-2", None)
    assert len(server.calls) == 1


async def test_a_poll_of_several_batches_is_one_call(api, server):
    """A page of 100 serves all batches; other batches on the page are left out."""
    route = CALLS["list"].route(server)
    route.mock(return_value=listing(batch("other"), batch("batch_2", "completed"), batch("batch_1")))
    found = await api.retrieve_many({"batch_1", "batch_2"})
    assert {key: value.status for key, value in found.items()} == {"batch_1": "validating", "batch_2": "completed"}
    assert route.calls.last.request.url.params["limit"] == "100"
    assert len(server.calls) == 1


async def test_a_batch_that_the_page_lacks_is_polled_by_itself(api, server):
    """A project may have more than a hundred newer batches."""
    CALLS["list"].route(server).mock(return_value=listing(batch("batch_2"), has_more=True))
    retrieve = CALLS["retrieve"].route(server).mock(return_value=CALLS["retrieve"].success)
    assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert retrieve.call_count == 1


@pytest.mark.parametrize("status_code", [404, 405, 501])
async def test_each_batch_is_polled_by_itself_if_there_is_no_list(api, server, clock, status_code):
    """The list is requested once."""
    pages = CALLS["list"].route(server).mock(return_value=refusal(status_code))
    for batch_id in ("batch_1", "batch_2"):
        server.get(f"/batches/{batch_id}").mock(return_value=reply(batch(batch_id)))
    for _ in range(3):
        assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert pages.call_count == 1
    assert clock.pauses == []


async def test_an_unknown_batch_is_an_error_that_names_the_batch(api, server, clock):
    """The error asks whether the key belongs to another project."""
    CALLS["retrieve"].route(server).mock(return_value=refusal(404, "No batch found with id 'batch_1'."))
    with pytest.raises(errors.RunError, match="project") as caught:
        await api.retrieve("batch_1")
    assert (caught.value.status_code, caught.value.batch_id) == (404, "batch_1")
    assert "No batch found with id 'batch_1'." in str(caught.value)
    assert clock.pauses == []


async def test_a_batch_that_was_shown_may_be_unknown_for_a_while(api, server, clock):
    """Replicas of a server learn of a new batch one after the other."""
    CALLS["create"].route(server).mock(return_value=CALLS["create"].success)
    unknown = refusal(404, "No batch found with id 'batch_1'.")
    CALLS["retrieve"].route(server).mock(
        side_effect=[unknown, unknown, reply(batch()), unknown, reply(batch(status="completed"))]
    )
    await CALLS["create"].make(api, None)
    assert (await api.retrieve("batch_1")).status == "validating"
    assert (await api.retrieve("batch_1")).status == "completed"


async def test_a_batch_that_was_shown_and_stays_unknown_is_an_error(api, server, clock):
    """The batch was deleted, or the key was changed."""
    route = CALLS["retrieve"].route(server).mock(return_value=CALLS["retrieve"].success)
    await api.retrieve("batch_1")
    route.mock(return_value=refusal(404, "No batch found with id 'batch_1'."))
    with pytest.raises(errors.RunError, match="forget SCOPE --lost"):
        await api.retrieve("batch_1")
    assert BATCH_VISIBLE_SECONDS <= clock.now <= 2 * BATCH_VISIBLE_SECONDS


async def test_each_batch_is_polled_by_itself_if_the_list_answers_something_else(api, server, clock):
    """The next poll requests the list again, since a proxy's page may pass."""
    pages = CALLS["list"].route(server).mock(return_value=reply({"error": {"message": "Not here."}}))
    for batch_id in ("batch_1", "batch_2"):
        server.get(f"/batches/{batch_id}").mock(return_value=reply(batch(batch_id)))
    for _ in range(2):
        assert (await api.retrieve_many({"batch_1", "batch_2"})).keys() == {"batch_1", "batch_2"}
    assert pages.call_count == 2
    assert not clock.pauses


@pytest.mark.parametrize("shown_status", ["completed", "in_progress"])
async def test_the_files_of_a_listed_batch_are_those_that_the_batch_itself_shows(api, server, shown_status):
    """A gateway lists other ids of files. A replica that does not know the end yet changes nothing."""
    listed = [batch(name, "completed", output_file_id="file-raw") for name in ("batch_1", "batch_2")]
    CALLS["list"].route(server).mock(return_value=listing(*listed))
    shown = batch(status=shown_status, output_file_id="file-2")
    route = CALLS["retrieve"].route(server).mock(return_value=reply(shown))
    found = (await api.retrieve_many({"batch_1", "batch_2"}))["batch_1"]
    ended = await api.wait_for_output_file(found)
    assert ended.output_file_id == ("file-2" if shown_status == "completed" else "file-raw")
    assert route.call_count == 1


# The list.


async def test_the_search_finds_the_running_one_of_two_batches_with_a_key(api, server):
    """A killed run may have cancelled one of them."""
    statuses = {"second": "cancelled", "first": "in_progress"}
    batches = [batch(batch_id, status, metadata={KEY_METADATA: "the-key"}) for batch_id, status in statuses.items()]
    CALLS["list"].route(server).mock(return_value=listing(*batches))
    found = await api.find("the-key", "file-1", since=NOW)
    assert found is not None
    assert found.id == "first"


async def test_the_list_ends_with_batches_older_than_a_month(api, server):
    """OpenAI keeps the files of a batch for thirty days."""
    batches = [batch("new"), batch("old", created_at=int(NOW) - 31 * 86_400)]
    pages = CALLS["list"].route(server).mock(side_effect=[httpx.Response(503), listing(*batches)])
    assert [batch.id for batch in await api.list_last_month()] == ["new", "old"]
    assert pages.call_count == 2


@pytest.mark.parametrize(("page", "can_list"), [(listing(), True), (refusal(404), False)])
async def test_the_check_of_the_list_is_one_call(api, server, page, can_list):
    CALLS["list"].route(server).mock(return_value=page)
    assert await api.can_list_batches() is can_list
    assert calls_made(server) == ["GET /batches"]


# Cancellations.


async def test_a_cancellation_is_one_call(api, server):
    route = CALLS["cancel"].route(server).mock(return_value=CALLS["cancel"].success)
    await api.cancel("batch_1")
    assert route.call_count == 1


@pytest.mark.parametrize("status_code", [400, 404, 409])
async def test_a_batch_that_has_ended_stays_unchanged(api, server, clock, status_code):
    """A refused cancellation is not retried, although 409 is a transient status code elsewhere."""
    message = "Cannot cancel a batch with status 'completed'."
    route = CALLS["cancel"].route(server).mock(return_value=refusal(status_code, message))
    await api.cancel("batch_1")
    assert route.call_count == 1
    assert clock.pauses == []
