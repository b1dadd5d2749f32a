"""Validation of input files, and refusals at the creation of a batch."""

import json
from dataclasses import replace
from random import Random

import pytest

from distilabel_openai_batch.sandbox.settings import Settings
from distilabel_openai_batch.sandbox.validation import validate_file

from .conftest import CHAT, batch_line, batch_lines, chat_body, jsonl

EMBEDDINGS = "/v1/embeddings"


def line_without(name):
    return {key: value for key, value in batch_line("a").items() if key != name}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{not json}\n", ("invalid_json_line", "This line is not parseable as valid JSON.", None, 1)),
        (b"[1]\n", ("invalid_json_line", "This line is not parseable as valid JSON.", None, 1)),
        (
            b"\xef\xbb\xbf" + jsonl(batch_lines(1)),
            ("invalid_json_line", "This line is not parseable as valid JSON.", None, 1),
        ),
        *(
            (
                jsonl([batch_line("first"), line_without(name)]),
                ("missing_required_parameter", f"Missing required parameter: '{name}'.", name, 2),
            )
            for name in ("custom_id", "method", "url", "body")
        ),
        (
            jsonl([batch_line("a", EMBEDDINGS)]),
            ("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url", 1),
        ),
        (
            jsonl([batch_line("a", body=chat_body() | {"model": "no-such-model"})]),
            (
                "model_not_found",
                "The provided model 'no-such-model' is not supported by the Batch API.",
                "body.model",
                1,
            ),
        ),
        (
            jsonl([batch_line("a", body=chat_body(stream=True))]),
            (
                "streaming_unsupported",
                "Chat Completions: Streaming is not supported in the Batch API.",
                "body.stream",
                1,
            ),
        ),
        (
            jsonl([batch_line("a", body={"messages": []})]),
            ("invalid_request", "Model parameter is required.", "body.model", 1),
        ),
        (
            jsonl([batch_line("a", body={"model": "gpt-4o"})]),
            ("invalid_request", "Messages parameter is required.", "body.messages", 1),
        ),
        (
            jsonl([batch_line("a"), batch_line("b"), batch_line("a")]),
            (
                "duplicate_custom_id",
                "The custom_id for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch.",
                None,
                None,
            ),
        ),
        (
            jsonl([batch_line("a"), batch_line("b", body=chat_body() | {"model": "gpt-4o"})]),
            (
                "mismatched_model",
                "The model 'gpt-4o' for this request does not match the rest of the batch. "
                "Each batch must contain requests for a single model.",
                None,
                None,
            ),
        ),
        (b"", ("empty_file", "The batch input file is empty.", None, None)),
        (b"\n\n", ("empty_file", "The batch input file is empty.", None, None)),
    ],
)
# long: a table of cases
async def test_bad_file_fails_the_batch_with_the_message_of_the_api(api, content, expected):
    """The creation succeeds; `errors` hold code, message, param and line."""
    created = await api.create_batch(content)
    batch = await api.get_batch(created)

    assert (created["status"], created["errors"]) == ("validating", None)
    assert batch["status"] == "failed"
    assert [(e["code"], e["message"], e["param"], e["line"]) for e in batch["errors"]["data"]] == [expected]
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}


async def test_every_bad_line_is_reported(api):
    """Lines are counted from 1, blank lines included."""
    good = json.dumps(batch_line("good")).encode()
    batch = await api.run_batch(b"\n".join([good, b"oops", b"", b"{}"]))

    assert [(e["code"], e["line"]) for e in batch["errors"]["data"]] == [
        ("invalid_json_line", 2),
        ("missing_required_parameter", 4),
    ]


@pytest.mark.parametrize("dialect", ["openai", "azure", "zhipu"])
def test_earlier_lines_do_not_change_the_problem_of_a_line(tmp_path, dialect):
    """Each line has the same problem in any place of a file."""
    settings = Settings(dialect=dialect)
    path = tmp_path / "in.jsonl"

    def problems(lines):
        path.write_bytes(b"\n".join(lines))
        return [replace(problem, line=None) for problem in validate_file(path, CHAT, settings).problems if problem.line]

    urls = (CHAT, "/chat/completions", "/v4/chat/completions", EMBEDDINGS, [CHAT], None, "")
    models = ("gpt-4o-mini", "no-such-model", "no-such-model-either", "", 5)
    bodies = [chat_body() | {"model": model} for model in models]
    requests = [batch_line("a", url, body=body) for url in urls for body in bodies]
    lines = [*(json.dumps(request).encode() for request in requests), b"{oops}", b" \t\x0b"]
    alone = {line: problems([line]) for line in lines}
    for seed in range(20):
        Random(seed).shuffle(lines)
        assert problems(lines) == [problem for line in lines for problem in alone[line]]


async def test_file_with_too_many_requests_fails(api):
    """The default limit is 50,000 requests."""
    await api.configure(max_requests=2)
    assert (await api.run_batch(batch_lines(2)))["status"] == "completed"
    (error,) = (await api.run_batch(batch_lines(3)))["errors"]["data"]
    assert error["code"] == "maximum_requests_exceeded"


async def test_too_large_file_fails(api):
    """The default limit is 209,715,200 bytes."""
    content = jsonl(batch_lines(2))
    await api.configure(max_bytes=len(content))
    assert (await api.run_batch(content))["status"] == "completed"
    await api.configure(max_bytes=len(content) - 1)
    (error,) = (await api.run_batch(content))["errors"]["data"]
    assert error["code"] == "maximum_input_file_size_exceeded"
    assert f"larger than the {len(content) - 1} maximum for the gpt-4o-mini-2024-07-18 model" in error["message"]


async def test_enqueued_tokens_are_counted_over_the_unfinished_batches_of_a_model(api):
    """A batch above the limit fails at its validation, and fits once the others have ended."""
    await api.configure(in_progress_seconds=10)
    first = await api.create_batch(batch_lines(3))
    tokens = 3 * (3 + 4 + 5)  # per request: 3, 4 for its message, 5 for its 20 characters
    assert (await api.get_batch(first))["request_counts"]["total"] == 3
    await api.configure(enqueued_token_limit=2 * tokens - 1)

    refused = await api.run_batch(batch_lines(3))
    other_model = await api.run_batch([batch_line("a", body=chat_body() | {"model": "gpt-4o"})])
    api.advance_clock(10)
    accepted = await api.run_batch(batch_lines(3))

    (error,) = refused["errors"]["data"]
    assert error["code"] == "token_limit_exceeded"
    assert error["message"].startswith("Enqueued token limit reached for gpt-4o-mini-2024-07-18 in organization org-")
    assert f"Limit: {2 * tokens - 1} enqueued tokens." in error["message"]
    assert other_model["status"] == "in_progress"
    assert accepted["status"] == "in_progress"


async def test_file_that_is_not_visible_yet_fails_the_batch(api):
    """Right after an upload the API may not find the file; the file is found later."""
    await api.configure(upload_visible_after_seconds=5)
    batch = await api.run_batch(batch_lines(1))
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["param"]) == ("invalid_request", "file_id")
    assert error["message"].startswith(f"Cannot find file {batch['input_file_id']}, or organization org-")

    api.advance_clock(5)
    creation = {key: batch[key] for key in ("input_file_id", "endpoint", "completion_window")}
    assert (await api.http.post("/v1/batches", json=creation)).status_code == 200
    await api.http.post("/sandbox/settle")
    assert (await api.books())["batches"][-1]["status"] == "completed"


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"input_file_id": None}, 400, "missing_required_parameter", "input_file_id"),
        ({"endpoint": None}, 400, "missing_required_parameter", "endpoint"),
        ({"endpoint": "/v1/poems"}, 400, "invalid_value", "endpoint"),
        ({"completion_window": "1h"}, 400, "invalid_value", "completion_window"),
        ({"metadata": {"a": 1}}, 400, "invalid_type", "metadata"),
        ({"metadata": {f"k{index}": "v" for index in range(17)}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k" * 65: "v"}}, 400, "invalid_value", "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "invalid_value", "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, 400, "invalid_value", None),
    ],
)
async def test_bad_creation_is_refused_at_once(api, change, status, code, param):
    """Return 400 for a bad call, and create no batch."""
    file_id = (await api.upload(jsonl(batch_lines(1)))).json()["id"]
    creation = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"} | change
    reply = await api.http.post("/v1/batches", json=creation)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert param in (None, error["param"])
    assert (await api.books())["batches"] == []


async def test_metadata_within_the_limits_is_returned(api):
    """Keep 16 pairs, with keys of 64 and values of 512 characters."""
    metadata = {f"{index:064}": "v" * 512 for index in range(16)}
    assert (await api.run_batch(batch_lines(1), metadata=metadata))["metadata"] == metadata


async def test_batches_beyond_the_hourly_limit_are_refused(api):
    """Return 429 with `Retry-After` until an hour has passed."""
    await api.configure(max_batches_per_hour=2)
    first = await api.create_batch(batch_lines(1))
    await api.create_batch(batch_lines(1))
    creation = {key: first[key] for key in ("input_file_id", "endpoint", "completion_window")}

    refused = await api.http.post("/v1/batches", json=creation)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "retry-after" in refused.headers
    api.advance_clock(3_600)
    assert (await api.http.post("/v1/batches", json=creation)).status_code == 200
