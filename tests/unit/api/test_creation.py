"""The creation of a batch exactly once, although its reply may be lost."""

from __future__ import annotations

import json
import logging
import pickle
from itertools import pairwise

import httpx
import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import creation
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.creation import CREATION_SECONDS, CreationLimit, UnclearCreationError, unclear_creation
from distilabel_openai_batch.api.files import InputFileGoneError
from tests.support.batch_api import (
    CALLS,
    CHAT,
    HTML,
    LOGGER,
    NOW,
    batch,
    calls_made,
    connect,
    listing,
    refusal,
    reply,
)


async def test_a_creation_sends_its_key_in_the_metadata(api, server):
    """The user's own metadata are sent too."""
    route = CALLS["create"].route(server).mock(return_value=CALLS["create"].success)
    created = await api.create("file-1", CHAT, "24h", "the-key", {"project": "demo"})
    assert (created.id, created.status) == ("batch_1", "validating")
    assert json.loads(route.calls.last.request.content) == {
        "input_file_id": "file-1",
        "endpoint": CHAT,
        "completion_window": "24h",
        "metadata": {KEY_METADATA: "the-key", "project": "demo"},
    }


# A lost reply.

LOST_REPLIES = {
    "time-out": httpx.ReadTimeout("timed out"),
    "connection cut": httpx.RemoteProtocolError("cut"),
    "409": refusal(409),
    "408": refusal(408),
    "500": refusal(500),
    "502 with an HTML page": httpx.Response(502, html=HTML),
    "a reply that is no batch": reply({"object": "batch"}),
}


@pytest.mark.parametrize("failure", LOST_REPLIES.values(), ids=LOST_REPLIES.keys())
async def test_a_batch_whose_reply_was_lost_is_found_by_its_key(api, server, caplog, failure):
    """The batch is created once, and billed once."""
    create = CALLS["create"].route(server).mock(side_effect=[failure])
    others = [batch(f"other_{n}", metadata={KEY_METADATA: f"other-{n}"}) for n in range(3)]
    CALLS["list"].route(server).mock(return_value=listing(*others, batch("found", metadata={KEY_METADATA: "the-key"})))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
    assert create.call_count == 1
    assert "found" in caplog.text


async def test_a_lost_batch_is_searched_on_every_page(api, server):
    """Each page starts after the last batch of the page before."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out")])
    pages = [[batch(f"other_{page}_{n}", input_file_id="file-other") for n in range(100)] for page in range(2)]
    pages.append([batch("found", metadata={KEY_METADATA: "the-key"})])
    route = CALLS["list"].route(server).mock(side_effect=[listing(*page, has_more=True) for page in pages])
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
    assert create.call_count == 1
    cursors = [call.request.url.params.get("after") for call in route.calls]
    assert cursors == [None, "other_0_99", "other_1_99"]
    assert {call.request.url.params["limit"] for call in route.calls} == {"100"}


async def test_a_lost_batch_is_not_searched_among_old_batches(api, server):
    """A batch that is older than the attempt by more than the clocks disagree is another batch."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    old = [batch(f"old_{n}", input_file_id="file-old", created_at=int(NOW) - 7_200) for n in range(100)]
    route = CALLS["list"].route(server).mock(return_value=listing(*old, has_more=True))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"
    assert create.call_count == 2
    assert not any(call.request.url.params.get("after") for call in route.calls)


async def test_a_lost_batch_is_found_if_the_oldest_batches_are_listed_first(api, server):
    """The last page of such a list has the newest batches."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    old = [batch(f"old_{n}", created_at=int(NOW) - 9_000 + n, metadata={KEY_METADATA: "other"}) for n in range(3)]
    pages = [listing(*old, has_more=True), listing(batch("found", metadata={KEY_METADATA: "the-key"}))]
    CALLS["list"].route(server).mock(side_effect=pages)
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


async def test_a_batch_is_created_again_only_after_the_search_found_none(api, server, clock):
    """After each lost reply the search goes on with growing pauses for `CREATION_SECONDS`."""
    lost = httpx.ReadTimeout("timed out")
    created_at = []

    def create(request):
        created_at.append(clock.now)
        if len(created_at) < 3:
            raise lost
        return CALLS["create"].success

    CALLS["create"].route(server).mock(side_effect=create)
    CALLS["list"].route(server).mock(side_effect=lambda request: listing())
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert all(later - earlier >= CREATION_SECONDS for earlier, later in pairwise(created_at))
    assert created_at[-1] <= 2 * (2 * CREATION_SECONDS + 60)
    assert clock.pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert calls_made(server)[:9] == ["POST /batches", *["GET /batches"] * 7, "POST /batches"]


async def test_a_batch_that_a_gateway_creates_late_is_found(api, server, clock):
    """The gateway reports a time-out, and creates the batch nevertheless."""
    create = CALLS["create"].route(server).mock(side_effect=[refusal(504)])
    late = batch("late", metadata={KEY_METADATA: "the-key"})
    CALLS["list"].route(server).mock(side_effect=lambda request: listing(*[late] * (clock.now > 20)))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "late"
    assert create.call_count == 1


async def test_a_failed_search_prevents_another_creation(api, server, clock):
    """A list that fails does not show whether the batch exists."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    failures = [httpx.Response(503), httpx.ReadTimeout("timed out"), refusal(429)] * 4
    CALLS["list"].route(server).mock(side_effect=[*failures, listing(), listing()])
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert create.call_count == 2
    assert calls_made(server) == ["POST /batches", *["GET /batches"] * 13, "POST /batches", "GET /batches"]


async def test_the_search_ends_if_the_server_ignores_the_cursor(clock, server):
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    page = [batch(f"other_{n}", input_file_id="file-other") for n in range(3)]
    CALLS["list"].route(server).mock(side_effect=[listing(*page)] * 40)
    async with connect() as api:
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"


async def test_a_lost_batch_is_found_by_its_file_if_metadata_are_dropped(api, server, caplog):
    """The missing feature is logged once."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    CALLS["list"].route(server).mock(return_value=listing(batch("other", input_file_id="file-2"), batch("found")))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"
        await api.create("file-1", CHAT, "24h", "another-key", {})
    assert caplog.text.count("drops a batch's metadata") == 1


async def test_a_lost_batch_is_not_mistaken_for_a_rejected_batch(api, server):
    """A rejected batch may have the same input file; a batch with another final status is the lost one."""
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    CALLS["list"].route(server).mock(return_value=listing(batch("rejected", "failed"), batch("found", "completed")))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


async def test_a_creation_that_is_refused_with_429_is_repeated_without_a_search(api, server, clock):
    """A 429 means that the server did nothing."""
    CALLS["create"].route(server).mock(side_effect=[refusal(429), refusal(429), CALLS["create"].success])
    await api.create("file-1", CHAT, "24h", "the-key", {})
    assert calls_made(server) == ["POST /batches"] * 3
    assert clock.pauses == [0.5, 1.0]


async def test_a_429_after_a_lost_reply_is_followed_by_a_search(api, server):
    """The batch of the first attempt may still appear."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), refusal(429)])
    found = batch("found", metadata={KEY_METADATA: "the-key"})
    CALLS["list"].route(server).mock(side_effect=lambda request: listing(*[found] * (create.call_count == 2)))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "found"


@pytest.mark.parametrize("status_code", [404, 405, 501])
@pytest.mark.parametrize("failure", LOST_REPLIES.values(), ids=LOST_REPLIES.keys())
async def test_a_lost_creation_is_never_repeated_if_there_is_no_list(api, server, status_code, failure):
    """Without a list the batch cannot be found: the error says so, and the job stays open."""
    CALLS["create"].route(server).mock(side_effect=[failure, CALLS["create"].success])
    CALLS["list"].route(server).mock(return_value=refusal(status_code))
    with pytest.raises(UnclearCreationError, match="The job stays open") as caught:
        await api.create("file-1", CHAT, "24h", "the-key", {})
    assert not caught.value.did_nothing
    assert "forget SCOPE --lost" in str(caught.value)
    assert calls_made(server) == ["POST /batches", "GET /batches"]


def test_an_unclear_creation_keeps_its_text_in_another_process():
    """A step's process sends its exception to the pipeline's."""
    error = unclear_creation("The reply was lost.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


async def test_an_unclear_creation_quotes_the_reply(api, server):
    CALLS["create"].route(server).mock(return_value=reply({"error": {"message": "The model is overloaded."}}))
    CALLS["list"].route(server).mock(return_value=refusal(404))
    with pytest.raises(UnclearCreationError, match=r"The model is overloaded\."):
        await api.create("file-1", CHAT, "24h", "the-key", {})


async def test_a_lost_creation_is_never_repeated_if_the_list_names_no_batch(api, server):
    """A recent batch without metadata and input file may be the lost one."""
    create = CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    anonymous = batch("anonymous", metadata=None, input_file_id=None)
    CALLS["list"].route(server).mock(return_value=listing(anonymous))
    with pytest.raises(UnclearCreationError):
        await api.create("file-1", CHAT, "24h", "the-key", {})
    with pytest.raises(UnclearCreationError):
        await api.find("the-key", "file-1", NOW)
    assert create.call_count == 1


async def test_a_lost_creation_is_repeated_beside_an_old_batch_without_a_name(api, server, clock):
    CALLS["create"].route(server).mock(side_effect=[httpx.ReadTimeout("timed out"), CALLS["create"].success])
    old = batch("anonymous", metadata=None, input_file_id=None, created_at=int(NOW) - 7_200)
    CALLS["list"].route(server).mock(return_value=listing(old))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"


async def test_a_creation_that_was_not_sent_is_repeated_if_there_is_no_list(api, server):
    """A 429 or a refused connection means that there is no batch."""
    failures = [refusal(429), httpx.ConnectError("gone")]
    CALLS["create"].route(server).mock(side_effect=[*failures, CALLS["create"].success])
    CALLS["list"].route(server).mock(return_value=refusal(404))
    assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"


async def test_a_missing_list_is_logged_at_a_creation(api, server, caplog):
    CALLS["create"].route(server).mock(return_value=CALLS["create"].success)
    CALLS["list"].route(server).mock(return_value=refusal(404))
    assert not await api.can_list_batches()
    with caplog.at_level(logging.WARNING, LOGGER.name):
        await api.create("file-1", CHAT, "24h", "the-key", {})
    assert "does not list" in caplog.text


async def test_the_batch_of_an_earlier_run_is_unclear_if_there_is_no_list(api, server):
    """A job without an upload certainly has no batch."""
    CALLS["list"].route(server).mock(return_value=refusal(404))
    assert await api.find("the-key", None, NOW) is None
    with pytest.raises(UnclearCreationError, match="file-1"):
        await api.find("the-key", "file-1", NOW)


async def test_a_refused_search_leaves_a_lost_creation_unclear(clock, server, input_file):
    """The key was withdrawn before the search, so there may be a batch."""
    CALLS["create"].route(server).mock(side_effect=httpx.ReadTimeout("timed out"))
    CALLS["list"].route(server).mock(return_value=refusal(401))
    async with connect() as api:
        with pytest.raises(errors.AuthenticationError) as caught:
            await api.create("file-1", CHAT, "24h", "the-key", {})
    assert not caught.value.did_nothing


# Duplicates.


@pytest.mark.parametrize("lost", [[refusal(504)], [refusal(504), refusal(504)]], ids=["once", "twice"])
async def test_the_newer_of_two_batches_with_a_key_is_cancelled(api, server, clock, caplog, lost):
    """The first batch appears so late that a second was created."""
    first = batch("first", metadata={KEY_METADATA: "the-key"}, created_at=int(NOW) + 50)
    second = batch("second", metadata={KEY_METADATA: "the-key"}, created_at=int(NOW) + 90)
    rejected = batch("rejected", "failed", metadata={KEY_METADATA: "the-key"})
    create = CALLS["create"].route(server).mock(side_effect=[*lost, reply(second)])
    CALLS["list"].route(server).mock(
        side_effect=lambda request: listing(*[second, first, rejected] * (create.call_count == 2))
    )
    cancel = server.post("/batches/second/cancel").mock(return_value=reply(second))
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "first"
    assert (create.call_count, cancel.call_count) == (2, 1)
    assert "batch second, which has the same requests, is cancelled" in caplog.text


async def test_a_batch_is_kept_if_the_search_for_duplicates_is_refused(api, server, caplog):
    create = CALLS["create"].route(server).mock(side_effect=[refusal(504), CALLS["create"].success])
    CALLS["list"].route(server).mock(
        side_effect=lambda request: listing() if create.call_count == 1 else refusal(403, "Not you.")
    )
    with caplog.at_level(logging.WARNING, LOGGER.name):
        assert (await api.create("file-1", CHAT, "24h", "the-key", {})).id == "batch_1"
    assert "batch_1 may have been created twice: Not you." in caplog.text


# An input file that is not visible yet.

NOT_VISIBLE = {
    "at the validation": refusal(
        400, "Cannot find file file-1, or organization org-1 does not have access to it.", code="invalid_request"
    ),
    "by its object": refusal(400, "No such File object: file-1", param="id"),
    "by its object, 404": refusal(404, "No such File object: file-1", param="id"),
    "by its parameter": refusal(400, "Invalid value.", param="input_file_id"),
    "without its id": refusal(404, "Input file not found."),
}


@pytest.mark.parametrize("not_visible", NOT_VISIBLE.values(), ids=NOT_VISIBLE.keys())
async def test_a_creation_is_repeated_while_its_input_file_is_not_visible(api, server, clock, not_visible):
    """The server created nothing, so there is no search."""
    CALLS["create"].route(server).mock(side_effect=[not_visible, not_visible, CALLS["create"].success])
    assert (await api.create("file-1", CHAT, "24h", "key", {})).id == "batch_1"
    assert calls_made(server) == ["POST /batches"] * 3


async def test_an_input_file_that_stays_invisible_is_an_error(api, server, clock):
    """The file exists, so the creation is repeated for five minutes; the error is the API's own."""
    create = CALLS["create"].route(server).mock(return_value=NOT_VISIBLE["at the validation"])
    server.get("/files/file-1").mock(return_value=reply({"id": "file-1", "status": "processed"}))
    with pytest.raises(errors.RunError, match="Cannot find file file-1") as caught:
        await api.create("file-1", CHAT, "24h", "key", {})
    assert caught.value.status_code == 400
    assert not isinstance(caught.value, InputFileGoneError)
    assert caught.value.did_nothing
    assert create.call_count == 12
    assert 240 <= clock.now <= 600


async def test_an_input_file_that_appears_after_minutes_is_used(api, server, clock):
    """A minute after the upload the server may still refuse the file."""
    CALLS["create"].route(server).mock(
        side_effect=lambda request: CALLS["create"].success if clock.now > 200 else NOT_VISIBLE["by its object"]
    )
    server.get("/files/file-1").mock(return_value=reply({"id": "file-1"}))
    assert (await api.create("file-1", CHAT, "24h", "key", {})).id == "batch_1"


async def test_an_input_file_that_is_gone_is_an_error_of_its_own(api, server, clock):
    """Another upload helps, so the error comes soon."""
    CALLS["create"].route(server).mock(return_value=NOT_VISIBLE["by its object"])
    server.get("/files/file-1").mock(return_value=refusal(404))
    with pytest.raises(InputFileGoneError, match="No such File object: file-1") as caught:
        await api.create("file-1", CHAT, "24h", "key", {})
    assert caught.value.did_nothing
    assert caught.value.status_code == 400
    assert clock.now < 30


async def test_another_refusal_of_a_creation_is_raised_at_once(api, server, clock):
    CALLS["create"].route(server).mock(return_value=refusal(400, "Invalid endpoint.", param="endpoint"))
    with pytest.raises(errors.RunError, match="Invalid endpoint") as caught:
        await api.create("file-1", CHAT, "24h", "key", {})
    assert caught.value.param == "endpoint"
    assert not clock.pauses


# The limit.


async def test_creations_wait_for_the_hourly_limit(clock, monkeypatch):
    """The fourth of three creations per hour waits until the first is an hour old."""
    monkeypatch.setattr(creation, "_CREATIONS_PER_HOUR", 3)
    clock.now = 1_000.0
    limit = CreationLimit()
    created_at = []
    for _ in range(7):
        await limit.wait()
        created_at.append(clock.now)
    assert created_at == [1_000.0] * 3 + [4_600.0] * 3 + [8_200.0]
