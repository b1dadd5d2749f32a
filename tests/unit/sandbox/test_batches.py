"""Life of a batch, from the creation to the result files."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, ResultFault, Settings, batch_worker
from distilabel_openai_batch.sandbox.organization import Organization
from distilabel_openai_batch.sandbox.results import StoredResults

from .conftest import batch_line, batch_lines, chat_body, jsonl

FILES = ("output_file_id", "error_file_id")


def failures_of(custom_ids):
    return [RequestFailure(contains=f"About {name},", code="bad", message="No.").model_dump() for name in custom_ids]


async def test_batch_passes_through_every_status(api):
    """Each status lasts for its duration, and its timestamp is in whole seconds."""
    await api.configure(validating_seconds=1, in_progress_seconds=2, seconds_per_request=0.5, finalizing_seconds=3)
    batch = await api.create_batch(batch_lines(4))
    replies = []
    for _ in range(9):
        replies.append(await api.get_batch(batch))
        api.advance_clock(1)

    assert [shown["status"] for shown in replies] == ["validating"] + ["in_progress"] * 4 + ["finalizing"] * 3 + [
        "completed"
    ]
    assert [shown["request_counts"]["completed"] for shown in replies] == [0, 0, 1, 2, 3, 4, 4, 4, 4]
    assert [shown["request_counts"]["total"] for shown in replies] == [0] + [4] * 8
    assert all((shown["output_file_id"] is None) == (shown["status"] != "completed") for shown in replies)
    last, start = replies[-1], replies[0]["created_at"]
    moments = ("in_progress_at", "finalizing_at", "completed_at", "expires_at")
    assert [last[name] - start for name in moments] == [1, 5, 8, 86_400]
    assert [last[name] for name in ("failed_at", "expired_at", "cancelling_at", "cancelled_at")] == [None] * 4


async def test_result_lines_are_shuffled_repeatably(api):
    """Each request has one line; the order differs from the requests and is the same each time."""
    batch, again = await api.run_batch(batch_lines(20)), await api.run_batch(batch_lines(20))
    lines = await api.read_lines(batch["output_file_id"])
    names = [line["custom_id"] for line in lines]

    assert sorted(names) == sorted(f"r{index}" for index in range(20))
    assert names != [f"r{index}" for index in range(20)]
    assert names == [line["custom_id"] for line in await api.read_lines(again["output_file_id"])]
    await api.configure(shuffle=False)
    lines = await api.read_lines((await api.run_batch(batch_lines(20)))["output_file_id"])
    assert [line["custom_id"] for line in lines] == [f"r{index}" for index in range(20)]


async def test_result_line_equals_the_synchronous_answer(api):
    """Bodies are equal byte for byte, id and time included."""
    batch = await api.run_batch(batch_lines(3))
    for line in await api.read_lines(batch["output_file_id"]):
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        sync = await api.http.post("/v1/chat/completions", json=batch_line(line["custom_id"])["body"])
        assert json.loads(sync.content) == line["response"]["body"]
        assert sync.content == json.dumps(line["response"]["body"], separators=(",", ":"), ensure_ascii=False).encode()


async def test_batch_reports_usage_and_model_of_the_answers(api):
    """The usage is the sum over the lines; the model has the dated name."""
    batch = await api.run_batch(batch_lines(5))
    usages = [line["response"]["body"]["usage"] for line in await api.read_lines(batch["output_file_id"])]
    assert batch["usage"]["input_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    assert batch["usage"]["output_tokens"] == sum(usage["completion_tokens"] for usage in usages)
    assert batch["usage"]["total_tokens"] == batch["usage"]["input_tokens"] + batch["usage"]["output_tokens"]
    assert batch["model"] == "gpt-4o-mini-2024-07-18"


async def test_failed_requests_are_in_the_error_file(api):
    """`response` holds status and message of the failure; `error` is null."""
    await api.configure(failures=failures_of(["r1"]))
    batch = await api.run_batch([*batch_lines(3), batch_line("bad", body=chat_body(n=0))])
    errors = {line["custom_id"]: line for line in await api.read_lines(batch["error_file_id"])}

    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert {line["custom_id"] for line in await api.read_lines(batch["output_file_id"])} == {"r0", "r2"}
    assert set(errors) == {"r1", "bad"}
    assert all(line["error"] is None and line["response"]["status_code"] == 400 for line in errors.values())
    assert errors["r1"]["response"]["body"]["error"]["code"] == "bad"
    assert errors["bad"]["response"]["body"]["error"]["code"] == "integer_below_min_value"


async def test_batch_without_failures_has_no_error_file(api):
    """`error_file_id` is null."""
    assert (await api.run_batch(batch_lines(2)))["error_file_id"] is None


async def test_batch_with_only_failures_has_no_output_file(api):
    """The batch is `completed`, and `errors` is null."""
    await api.configure(failures=failures_of(["r0", "r1"]))
    batch = await api.run_batch(batch_lines(2))
    assert (batch["status"], batch["output_file_id"], batch["errors"]) == ("completed", None, None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    assert len(await api.read_lines(batch["error_file_id"])) == 2


async def test_failure_is_limited_by_times_and_endpoint(api):
    """`times` requests fail; `sync` failures spare batches and send `Retry-After`."""
    await api.configure(failures=[RequestFailure(contains="About r", times=2, endpoint="batch").model_dump()])
    assert (await api.run_batch(batch_lines(5)))["request_counts"]["failed"] == 2
    assert (await api.run_batch(batch_lines(5)))["request_counts"]["failed"] == 0

    failure = RequestFailure(contains="About r", status=429, endpoint="sync", retry_after=2.5)
    await api.configure(failures=[failure.model_dump()])
    assert (await api.run_batch(batch_lines(5)))["request_counts"]["failed"] == 0
    reply = await api.http.post("/v1/chat/completions", json=batch_line("r1")["body"])
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "2.5")


async def test_expired_batch_returns_partial_results(api):
    """The other requests are in the error file as `batch_expired`, and count neither as completed nor as failed."""
    await api.configure(seconds_per_request=1, window_seconds=4)
    batch = await api.create_batch(batch_lines(10))
    api.advance_clock(5)
    batch = await api.get_batch(batch)
    output, errors = [await api.read_lines(batch[name]) for name in FILES]

    assert (batch["status"], batch["expired_at"]) == ("expired", batch["expires_at"])
    assert batch["request_counts"] == {"total": 10, "completed": 4, "failed": 0}
    assert len(output) == 4
    assert {line["custom_id"] for line in output + errors} == {f"r{index}" for index in range(10)}
    for line in errors:
        message = "This request could not be executed before the completion window expired."
        assert (line["response"], line["error"]) == (None, {"code": "batch_expired", "message": message})
    assert len((await api.books())["billed"]) == 4


async def test_cancelled_batch_returns_partial_results(api):
    """The batch is `cancelling` first; a second request to cancel changes nothing."""
    await api.configure(seconds_per_request=1, cancelling_seconds=3)
    batch = await api.create_batch(batch_lines(8))
    api.advance_clock(4)
    assert (await api.cancel_batch(batch)).json()["status"] == "cancelling"
    api.advance_clock(2)
    assert (await api.cancel_batch(batch)).json()["status"] == "cancelling"
    api.advance_clock(1)
    batch = await api.get_batch(batch)

    assert batch["status"] == "cancelled"
    assert batch["request_counts"] == {"total": 8, "completed": 4, "failed": 0}
    assert len(await api.read_lines(batch["output_file_id"])) == 4
    assert [line["error"]["code"] for line in await api.read_lines(batch["error_file_id"])] == ["batch_cancelled"] * 4
    assert (await api.cancel_batch(batch)).json()["status"] == "cancelled"


@pytest.mark.parametrize(("lines", "status"), [(batch_lines(1), "completed"), (b"oops\n", "failed")])
async def test_ended_batch_cannot_be_cancelled(api, lines, status):
    """Return 409 and name the status."""
    reply = await api.cancel_batch(await api.run_batch(lines))
    assert reply.status_code == 409
    assert reply.json()["error"]["message"] == f"Cannot cancel a batch with status '{status}'."


async def test_unknown_batch_is_404(api):
    """Return 404 on retrieve and on cancel."""
    for reply in (await api.http.get("/v1/batches/batch_x"), await api.cancel_batch({"id": "batch_x"})):
        assert reply.status_code == 404
        assert reply.json()["error"]["message"] == "No batch found with id 'batch_x'."


async def test_batches_are_listed_newest_first_in_pages(api):
    """A page has 20 batches by default, 100 at most."""
    batch_ids = [(await api.create_batch(batch_lines(1)))["id"] for _ in range(25)][::-1]

    async def page(**query):
        reply = await api.http.get("/v1/batches", params=query)
        return [entry["id"] for entry in reply.json()["data"]], reply.json()["has_more"]

    assert await page() == (batch_ids[:20], True)
    assert await page(after=batch_ids[19]) == (batch_ids[20:], False)
    assert await page(limit=25) == (batch_ids, False)
    assert await page(limit=3, after=batch_ids[4]) == (batch_ids[5:8], True)
    for bad_limit in (0, 101, "x"):
        assert (await api.http.get("/v1/batches", params={"limit": bad_limit})).status_code == 400
    assert (await api.http.get("/v1/batches", params={"after": "batch_x"})).status_code == 404


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "a text", "dimensions": 8}),
    ],
)
async def test_other_endpoints_accept_batches(api, url, body):
    """Result lines hold the synchronous answer."""
    batch = await api.run_batch([batch_line("a", url, body=body)], endpoint=url)
    (line,) = await api.read_lines(batch["output_file_id"])
    assert line["response"]["body"] == (await api.http.post(url, json=body)).json()


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
async def test_result_faults_corrupt_one_line(api, kind, output, error):
    """Each kind of fault happens once and spares the other lines."""
    await api.add_fault(ResultFault(kind=kind, contains="About a,"))
    batch = await api.run_batch([batch_line("a"), batch_line("b")])

    async def markers_of(file_id):
        if file_id is None:
            return ""
        markers = ""
        for line in (await api.http.get(f"/v1/files/{file_id}/content")).text.split("\n")[:-1]:
            try:
                name = json.loads(line)["custom_id"]
            except ValueError:
                name = "!" if line else "_"
            markers += "?" if name.startswith("nobody") else name
        return markers

    assert sorted((await markers_of(batch["output_file_id"])).replace("b", "")) == sorted(output)
    assert await markers_of(batch["error_file_id"]) == error
    assert "b" in await markers_of(batch["output_file_id"])
    assert (await api.run_batch([batch_line("a")]))["request_counts"]["completed"] == 1


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("string_body", lambda line: isinstance(json.loads(line["response"]["body"]), dict)),
        ("null_response", lambda line: (line["response"], line["error"]) == (None, None)),
        ("null_body", lambda line: line["response"]["body"] is None),
        ("status_zero", lambda line: line["response"]["status_code"] == 0),
    ],
)
async def test_result_faults_corrupt_the_content_of_a_line(api, kind, check):
    """The line stays in its file."""
    await api.add_fault(ResultFault(kind=kind, times=-1))
    for line in await api.read_lines((await api.run_batch(batch_lines(2)))["output_file_id"]):
        assert check(line)


async def test_fault_never_finish_keeps_a_batch_in_progress(api):
    """The batch stays in progress past its expiry; after a cancel the batch returns partial results."""
    await api.add_fault(BatchFault(kind="never_finish", value=3))
    batch = await api.create_batch(batch_lines(4))
    api.advance_clock(1_000_000)
    shown = await api.get_batch(batch)
    assert (shown["status"], shown["request_counts"]["completed"]) == ("in_progress", 3)
    assert (await api.cancel_batch(batch)).json()["status"] == "cancelled"
    assert len(await api.read_lines((await api.get_batch(batch))["output_file_id"])) == 3


async def test_fault_status_shows_an_unknown_status(api):
    """The first `looks` replies show the status, the reply to the creation included."""
    await api.add_fault(BatchFault(kind="status", value="SCHEDULING", looks=2))
    batch = await api.create_batch(batch_lines(1))
    assert [batch["status"], *[(await api.get_batch(batch))["status"] for _ in range(2)]] == [
        "SCHEDULING",
        "SCHEDULING",
        "completed",
    ]


@pytest.mark.parametrize(("kind", "status"), [("expire", "expired"), ("cancel", "cancelled")])
async def test_faults_expire_and_cancel_end_a_batch_early(api, kind, status):
    """`value` requests are answered, half of them by default."""
    await api.add_fault(BatchFault(kind=kind, value=1))
    await api.add_fault(BatchFault(kind=kind))
    for answered in (1, 2):
        batch = await api.run_batch(batch_lines(4))
        assert (batch["status"], batch["request_counts"]["completed"]) == (status, answered)
        assert len(await api.read_lines(batch["output_file_id"])) == answered
        assert len(await api.read_lines(batch["error_file_id"])) == 4 - answered


async def test_fault_fail_fails_a_batch(api):
    """The batch fails at its validation, or later with results."""
    await api.add_fault(BatchFault(kind="fail", value={"code": "odd", "message": "Very odd.", "line": 3}))
    await api.add_fault(BatchFault(kind="fail", value={"code": "odd", "done": 1}))
    early, late = await api.run_batch(batch_lines(3)), await api.run_batch(batch_lines(3))
    assert early["errors"]["data"] == [{"code": "odd", "message": "Very odd.", "param": None, "line": 3}]
    assert [batch["status"] for batch in (early, late)] == ["failed", "failed"]
    assert (early["output_file_id"], late["errors"]["data"][0]["code"]) == (None, "odd")
    assert len(await api.read_lines(late["output_file_id"])) == 1


async def test_fault_no_errors_hides_the_reason_of_a_failed_batch(api):
    await api.add_fault(BatchFault(kind="fail"))
    await api.add_fault(BatchFault(kind="no_errors"))
    batch = await api.run_batch(batch_lines(1))
    assert (batch["status"], batch["errors"]) == ("failed", None)


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
async def test_batch_faults_corrupt_the_batch_object(api, kind, shown):
    """The fault happens to one batch unless `times` says otherwise."""
    await api.add_fault(BatchFault(kind=kind))
    batch, normal = await api.run_batch(batch_lines(1)), await api.run_batch(batch_lines(1))
    assert {name: batch[name] for name in shown} == shown
    assert {name: normal[name] for name in shown} != shown


async def test_fault_empty_files_makes_an_empty_error_file(api):
    """A batch without failures has an error file of 0 bytes."""
    await api.add_fault(BatchFault(kind="empty_files"))
    batch = await api.run_batch(batch_lines(1))
    assert await api.read_lines(batch["error_file_id"]) == []
    assert batch["error_file_id"] is not None


async def test_fault_bare_shows_only_common_fields(api):
    """The batch object lacks the fields that compatible servers lack."""
    await api.add_fault(BatchFault(kind="bare"))
    batch = await api.run_batch(batch_lines(1))
    assert {"usage", "model", "errors", "expires_at", "in_progress_at"}.isdisjoint(batch)
    assert batch["status"] == "completed"


async def test_twenty_concurrent_batches_do_not_mix(api):
    """Each batch gets the answers to its own requests."""

    async def run_numbered(number):
        lines = [batch_line(f"j{number}-{index}") for index in range(30)]
        return number, await api.run_batch(jsonl(lines))

    for number, batch in await asyncio.gather(*(run_numbered(number) for number in range(20))):
        names = {line["custom_id"] for line in await api.read_lines(batch["output_file_id"])}
        assert names == {f"j{number}-{index}" for index in range(30)}


async def test_batches_are_answered_one_at_a_time(api, monkeypatch):
    """Threads that compute side by side would slow each other down."""
    write, running = StoredResults.write, []

    def counting_write(results, *arguments):
        running.append(running[-1] + 1 if running else 1)
        time.sleep(0.02)
        write(results, *arguments)
        running.append(running[-1] - 1)

    monkeypatch.setattr(StoredResults, "write", counting_write)
    batches = await asyncio.gather(*[api.create_batch(batch_lines(3)) for _ in range(5)])

    assert [(await api.get_batch(batch))["status"] for batch in batches] == ["completed"] * 5
    assert running == [1, 0] * 5


def test_worker_pauses_for_active_calls(monkeypatch):
    """The pause has a maximum length, and stops the work when the sandbox closes."""
    organization, pauses = Organization(Settings(), time.time), []
    worker = organization.worker
    monkeypatch.setattr(batch_worker, "time", SimpleNamespace(sleep=pauses.append, monotonic=lambda: sum(pauses)))
    assert not worker._pause()
    assert pauses == []

    worker.active_calls = 1
    assert not worker._pause()
    assert sum(pauses) == pytest.approx(batch_worker._YIELD_SECONDS, abs=0.001)

    organization.close()
    assert worker._pause()


async def test_new_durations_hold_for_batches_in_progress(api):
    """A long batch ends at once, not in the past."""
    await api.configure(in_progress_seconds=1_000)
    batch = await api.create_batch(batch_lines(1))
    api.advance_clock(500)
    assert (await api.get_batch(batch))["status"] == "in_progress"
    await api.configure(in_progress_seconds=0)
    batch = await api.get_batch(batch)
    assert (batch["status"], batch["completed_at"] - batch["created_at"]) == ("completed", 500)
