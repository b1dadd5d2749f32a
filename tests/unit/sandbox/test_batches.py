"""The life of a batch, from its creation to its files."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, ResultFault, Settings, organization
from distilabel_openai_batch.sandbox.organization import Organization
from distilabel_openai_batch.sandbox.results import Results

from .conftest import body, jsonl, request, requests

FILES = ("output_file_id", "error_file_id")


def failing(custom_ids):
    return [RequestFailure(contains=f"About {name},", code="bad", message="No.").model_dump() for name in custom_ids]


async def test_a_batch_goes_through_every_status(desk):
    """Each status lasts as long as was set, and its moment is noted in whole seconds."""
    await desk.configure(validating_seconds=1, in_progress_seconds=2, seconds_per_request=0.5, finalizing_seconds=3)
    batch = await desk.create(requests(4))
    seen = []
    for _ in range(9):
        seen.append(await desk.look(batch))
        desk.wait(1)

    assert [look["status"] for look in seen] == ["validating"] + ["in_progress"] * 4 + ["finalizing"] * 3 + [
        "completed"
    ]
    assert [look["request_counts"]["completed"] for look in seen] == [0, 0, 1, 2, 3, 4, 4, 4, 4]
    assert [look["request_counts"]["total"] for look in seen] == [0] + [4] * 8
    assert all((look["output_file_id"] is None) == (look["status"] != "completed") for look in seen)
    last, start = seen[-1], seen[0]["created_at"]
    moments = ("in_progress_at", "finalizing_at", "completed_at", "expires_at")
    assert [last[name] - start for name in moments] == [1, 5, 8, 86_400]
    assert [last[name] for name in ("failed_at", "expired_at", "cancelling_at", "cancelled_at")] == [None] * 4


async def test_results_are_joined_by_custom_id_not_by_order(desk):
    """Every request has one line; the lines stand in another order than the requests, the same each time."""
    batch, again = await desk.run(requests(20)), await desk.run(requests(20))
    lines = await desk.read(batch["output_file_id"])
    names = [line["custom_id"] for line in lines]

    assert sorted(names) == sorted(f"r{index}" for index in range(20))
    assert names != [f"r{index}" for index in range(20)]
    assert names == [line["custom_id"] for line in await desk.read(again["output_file_id"])]
    await desk.configure(shuffle=False)
    lines = await desk.read((await desk.run(requests(20)))["output_file_id"])
    assert [line["custom_id"] for line in lines] == [f"r{index}" for index in range(20)]


async def test_a_line_holds_what_the_synchronous_call_answers(desk):
    """Byte for byte the same body, id and time included."""
    batch = await desk.run(requests(3))
    for line in await desk.read(batch["output_file_id"]):
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        sync = await desk.http.post("/v1/chat/completions", json=request(line["custom_id"])["body"])
        assert json.loads(sync.content) == line["response"]["body"]
        assert sync.content == json.dumps(line["response"]["body"], separators=(",", ":"), ensure_ascii=False).encode()


async def test_usage_and_model_are_those_of_the_answers(desk):
    """The tokens of the batch are the sum over its lines; the model is the dated one."""
    batch = await desk.run(requests(5))
    usages = [line["response"]["body"]["usage"] for line in await desk.read(batch["output_file_id"])]
    assert batch["usage"]["input_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    assert batch["usage"]["output_tokens"] == sum(usage["completion_tokens"] for usage in usages)
    assert batch["usage"]["total_tokens"] == batch["usage"]["input_tokens"] + batch["usage"]["output_tokens"]
    assert batch["model"] == "gpt-4o-mini-2024-07-18"


async def test_failed_requests_stand_in_the_error_file(desk):
    """With the status and the message of the failure in `response`, and `error` null."""
    await desk.configure(failures=failing(["r1"]))
    batch = await desk.run([*requests(3), request("bad", body=body(n=0))])
    errors = {line["custom_id"]: line for line in await desk.read(batch["error_file_id"])}

    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert {line["custom_id"] for line in await desk.read(batch["output_file_id"])} == {"r0", "r2"}
    assert set(errors) == {"r1", "bad"}
    assert all(line["error"] is None and line["response"]["status_code"] == 400 for line in errors.values())
    assert errors["r1"]["response"]["body"]["error"]["code"] == "bad"
    assert errors["bad"]["response"]["body"]["error"]["code"] == "integer_below_min_value"


async def test_without_failures_there_is_no_error_file(desk):
    """`error_file_id` is null."""
    assert (await desk.run(requests(2)))["error_file_id"] is None


async def test_when_all_failed_there_is_no_output_file(desk):
    """The batch is `completed` nevertheless, with `errors` null."""
    await desk.configure(failures=failing(["r0", "r1"]))
    batch = await desk.run(requests(2))
    assert (batch["status"], batch["output_file_id"], batch["errors"]) == ("completed", None, None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert len(await desk.read(batch["error_file_id"])) == 2


async def test_a_failure_can_be_limited_to_so_many_requests_and_to_one_way(desk):
    """After `times` requests it is used up; `sync` failures leave batches alone, and carry `Retry-After`."""
    await desk.configure(failures=[RequestFailure(contains="About r", times=2, endpoint="batch").model_dump()])
    assert (await desk.run(requests(5)))["request_counts"]["failed"] == 2
    assert (await desk.run(requests(5)))["request_counts"]["failed"] == 0

    failure = RequestFailure(contains="About r", status=429, endpoint="sync", retry_after=2.5)
    await desk.configure(failures=[failure.model_dump()])
    assert (await desk.run(requests(5)))["request_counts"]["failed"] == 0
    reply = await desk.http.post("/v1/chat/completions", json=request("r1")["body"])
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "2.5")


async def test_an_expired_batch_returns_what_was_answered(desk):
    """The rest stands in the error file as `batch_expired`, and counts neither as completed nor as failed."""
    await desk.configure(seconds_per_request=1, window_seconds=4)
    batch = await desk.create(requests(10))
    desk.wait(5)
    batch = await desk.look(batch)
    output, errors = [await desk.read(batch[name]) for name in FILES]

    assert (batch["status"], batch["expired_at"]) == ("expired", batch["expires_at"])
    assert batch["request_counts"] == {"total": 10, "completed": 4, "failed": 0}
    assert len(output) == 4
    assert {line["custom_id"] for line in output + errors} == {f"r{index}" for index in range(10)}
    for line in errors:
        message = "This request could not be executed before the completion window expired."
        assert (line["response"], line["error"]) == (None, {"code": "batch_expired", "message": message})
    assert len((await desk.books())["billed"]) == 4


async def test_a_cancelled_batch_returns_what_was_answered(desk):
    """It is `cancelling` first; cancelling it again changes nothing."""
    await desk.configure(seconds_per_request=1, cancelling_seconds=3)
    batch = await desk.create(requests(8))
    desk.wait(4)
    assert (await desk.cancel(batch)).json()["status"] == "cancelling"
    desk.wait(2)
    assert (await desk.cancel(batch)).json()["status"] == "cancelling"
    desk.wait(1)
    batch = await desk.look(batch)

    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 8, "completed": 4, "failed": 0}
    assert len(await desk.read(batch["output_file_id"])) == 4
    assert [line["error"]["code"] for line in await desk.read(batch["error_file_id"])] == ["batch_cancelled"] * 4
    assert (await desk.cancel(batch)).json()["status"] == "cancelled"


@pytest.mark.parametrize(("lines", "status"), [(requests(1), "completed"), (b"oops\n", "failed")])
async def test_what_has_ended_cannot_be_cancelled(desk, lines, status):
    """409, naming the status."""
    reply = await desk.cancel(await desk.run(lines))
    assert reply.status_code == 409
    assert reply.json()["error"]["message"] == f"Cannot cancel a batch with status '{status}'."


async def test_an_unknown_batch_is_404(desk):
    """To look at and to cancel."""
    for reply in (await desk.http.get("/v1/batches/batch_x"), await desk.cancel({"id": "batch_x"})):
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == "No batch found with id 'batch_x'."


async def test_batches_are_listed_newest_first_in_pages(desk):
    """20 a page unless told otherwise, 100 at most."""
    made = [(await desk.create(requests(1)))["id"] for _ in range(25)][::-1]

    async def page(**query):
        reply = await desk.http.get("/v1/batches", params=query)
        return [entry["id"] for entry in reply.json()["data"]], reply.json()["has_more"]

    assert await page() == (made[:20], True)
    assert await page(after=made[19]) == (made[20:], False)
    assert await page(limit=25) == (made, False)
    assert await page(limit=3, after=made[4]) == (made[5:8], True)
    for wrong in (0, 101, "x"):
        assert (await desk.http.get("/v1/batches", params={"limit": wrong})).status_code == 400
    assert (await desk.http.get("/v1/batches", params={"after": "batch_x"})).status_code == 404


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a text", "dimensions": 8}),
    ],
)
async def test_the_other_endpoints_take_batches_too(desk, url, asked):
    """With the answer that the synchronous call gives."""
    batch = await desk.run([request("a", url, body=asked)], endpoint=url)
    (line,) = await desk.read(batch["output_file_id"])
    assert line["response"]["body"] == (await desk.http.post(url, json=asked)).json()


@pytest.mark.parametrize(
    ("kind", "output", "error"),
    [
        ("lose", "", ""),
        ("double", "aa", ""),
        ("malform", "!", ""),
        ("unknown", "?a", ""),
        ("blank", "_a", ""),
        ("to_error_file", "", "a"),
        ("server_error", "", "a"),
        ("bare_error", "", "a"),
    ],
)
async def test_result_lines_can_be_spoilt(desk, kind, output, error):
    """Each kind of fault does what it says, once, and leaves the other lines alone."""
    await desk.add_fault(ResultFault(kind=kind, contains="About a,"))
    batch = await desk.run([request("a"), request("b")])

    async def signs(file_id):
        if file_id is None:
            return ""
        signs = ""
        for line in (await desk.http.get(f"/v1/files/{file_id}/content")).text.split("\n")[:-1]:
            try:
                name = json.loads(line)["custom_id"]
            except ValueError:
                name = "!" if line else "_"
            signs += "?" if name.startswith("nobody") else name
        return signs

    assert sorted((await signs(batch["output_file_id"])).replace("b", "")) == sorted(output)
    assert await signs(batch["error_file_id"]) == error
    assert "b" in await signs(batch["output_file_id"])
    assert (await desk.run([request("a")]))["request_counts"]["completed"] == 1


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("string_body", lambda line: isinstance(json.loads(line["response"]["body"]), dict)),
        ("null_response", lambda line: (line["response"], line["error"]) == (None, None)),
        ("null_body", lambda line: line["response"]["body"] is None),
        ("status_zero", lambda line: line["response"]["status_code"] == 0),
    ],
)
async def test_what_a_result_line_holds_can_be_spoilt(desk, kind, check):
    """The line stays where it is."""
    await desk.add_fault(ResultFault(kind=kind, times=-1))
    for line in await desk.read((await desk.run(requests(2)))["output_file_id"]):
        assert check(line)


async def test_a_batch_may_never_finish(desk):
    """It stays in progress past its expiry; cancelled, it returns what was answered."""
    await desk.add_fault(BatchFault(kind="never_finish", value=3))
    batch = await desk.create(requests(4))
    desk.wait(1_000_000)
    seen = await desk.look(batch)
    assert (seen["status"], seen["request_counts"]["completed"]) == ("in_progress", 3)
    assert (await desk.cancel(batch)).json()["status"] == "cancelled"
    assert len(await desk.read((await desk.look(batch))["output_file_id"])) == 3


async def test_a_batch_may_show_a_status_that_nobody_knows(desk):
    """For so many looks, the reply to its creation included."""
    await desk.add_fault(BatchFault(kind="status", value="SCHEDULING", looks=2))
    batch = await desk.create(requests(1))
    assert [batch["status"], *[(await desk.look(batch))["status"] for _ in range(2)]] == [
        "SCHEDULING",
        "SCHEDULING",
        "completed",
    ]


@pytest.mark.parametrize(("kind", "status"), [("expire", "expired"), ("cancel", "cancelled")])
async def test_a_batch_may_end_early(desk, kind, status):
    """With as many answers as were asked for, half of them by default."""
    await desk.add_fault(BatchFault(kind=kind, value=1))
    await desk.add_fault(BatchFault(kind=kind))
    for answered in (1, 2):
        batch = await desk.run(requests(4))
        assert (batch["status"], batch["request_counts"]["completed"]) == (status, answered)
        assert len(await desk.read(batch["output_file_id"])) == answered
        assert len(await desk.read(batch["error_file_id"])) == 4 - answered


async def test_a_batch_may_fail_at_will(desk):
    """At its validation, or later with results."""
    await desk.add_fault(BatchFault(kind="fail", value={"code": "odd", "message": "Very odd.", "line": 3}))
    await desk.add_fault(BatchFault(kind="fail", value={"code": "odd", "done": 1}))
    early, late = await desk.run(requests(3)), await desk.run(requests(3))
    assert early["errors"]["data"] == [{"code": "odd", "message": "Very odd.", "param": None, "line": 3}]
    assert [batch["status"] for batch in (early, late)] == ["failed", "failed"]
    assert (early["output_file_id"], late["errors"]["data"][0]["code"]) == (None, "odd")
    assert len(await desk.read(late["output_file_id"])) == 1


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("no_files", {"output_file_id": None, "error_file_id": None}),
        ("lost_files", {"output_file_id": "file-lost", "error_file_id": None}),
        ("empty_file_ids", {"error_file_id": ""}),
        ("null_counts", {"request_counts": None}),
        ("upper_case", {"status": "COMPLETED"}),
    ],
)
async def test_a_batch_object_may_be_odd(desk, kind, shown):
    """One batch only, unless told otherwise."""
    await desk.add_fault(BatchFault(kind=kind))
    batch, sound = await desk.run(requests(1)), await desk.run(requests(1))
    assert {name: batch[name] for name in shown} == shown
    assert {name: sound[name] for name in shown} != shown


async def test_a_batch_may_have_empty_files(desk):
    """The error file of a clean batch exists then, without a byte."""
    await desk.add_fault(BatchFault(kind="empty_files"))
    batch = await desk.run(requests(1))
    assert await desk.read(batch["error_file_id"]) == []
    assert batch["error_file_id"] is not None


async def test_a_batch_object_may_be_bare(desk):
    """As compatible servers show it."""
    await desk.add_fault(BatchFault(kind="bare"))
    batch = await desk.run(requests(1))
    assert {"usage", "model", "errors", "expires_at", "in_progress_at"}.isdisjoint(batch)
    assert batch["status"] == "completed"


async def test_twenty_jobs_at_once_do_not_mix(desk):
    """Each gets the answers to its own requests."""

    async def job(number):
        asked = [request(f"j{number}-{index}") for index in range(30)]
        return number, await desk.run(jsonl(asked))

    for number, batch in await asyncio.gather(*(job(number) for number in range(20))):
        names = {line["custom_id"] for line in await desk.read(batch["output_file_id"])}
        assert names == {f"j{number}-{index}" for index in range(30)}


async def test_batches_are_answered_one_at_a_time(desk, monkeypatch):
    """Threads that compute side by side would only keep one another from running."""
    write, at_once = Results.write, []

    def counting(results, *given):
        at_once.append(at_once[-1] + 1 if at_once else 1)
        time.sleep(0.02)
        write(results, *given)
        at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(Results, "write", counting)
    batches = await asyncio.gather(*[desk.create(requests(3)) for _ in range(5)])

    assert [(await desk.look(batch))["status"] for batch in batches] == ["completed"] * 5
    assert at_once == [1, 0] * 5


def test_the_work_on_a_batch_gives_way_to_callers(monkeypatch):
    """It goes on when they are served, and after a while at any rate; it is given up when the sandbox closes."""
    account, pauses = Organization(Settings(), time.time), []
    monkeypatch.setattr(organization, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: sum(pauses)))
    assert not account._give_way()
    assert pauses == []

    account.callers = 1
    assert not account._give_way()
    assert sum(pauses) == pytest.approx(organization._WAY_SECONDS, abs=0.001)

    account.close()
    assert account._give_way()


async def test_new_times_hold_for_batches_under_way(desk):
    """A long job can be let go; it ends now, not in the past."""
    await desk.configure(in_progress_seconds=1_000)
    batch = await desk.create(requests(1))
    desk.wait(500)
    assert (await desk.look(batch))["status"] == "in_progress"
    await desk.configure(in_progress_seconds=0)
    batch = await desk.look(batch)
    assert (batch["status"], batch["completed_at"] - batch["created_at"]) == ("completed", 500)
