"""Tests of reading the results of an external batch, with a stub of the Batch API."""

from __future__ import annotations

import orjson
import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.body_outline import outline_body
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, build_result_line
from distilabel_openai_batch.api.requests import build_custom_id, digest_body
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.operations.adopt import read_results

URL = "http://one/v1/"
ENDPOINT = "/v1/chat/completions"
BODIES = [{"model": "m", "messages": [number]} for number in (1, 2, 1)]


class StubFiles:
    """Files of a server by id."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents

    async def download(self, file_id: str, path, limit) -> None:
        path.write_bytes(self.contents[file_id])


class StubAPI:
    """Batch API with one batch and its files."""

    def __init__(self, batch: Batch, **contents: bytes) -> None:
        self.batch, self.files = batch, StubFiles(contents)

    async def retrieve(self, batch_id: str) -> Batch:
        return self.batch

    async def wait_for_output_file(self, batch: Batch) -> Batch:
        return batch


def expected_id(body: dict, occurrence: int) -> str:
    return build_custom_id(digest_body(URL, ENDPOINT, orjson.dumps(body)), occurrence)


@pytest.mark.parametrize("status", ["completed", "sealed"])
async def test_results_get_the_custom_ids_of_a_run(tmp_path, status):
    """Equal requests are numbered; a request without a result is a failure; other lines are skipped.

    A batch with an unknown status shows its end by a time.
    """
    requests = [orjson.dumps({"custom_id": f"row {n}", "url": ENDPOINT, "body": b}) for n, b in enumerate(BODIES)]
    results = [build_result_line(f"row {n}", {"model": "m", "id": str(n)}) for n in (2, 0, 9)]
    batch = Batch(
        "batch_1",
        status,
        endpoint=ENDPOINT,
        input_file_id="input",
        output_file_id="output",
        ended_as="completed",
    )
    api = StubAPI(batch, input=b"\n".join([*requests, b"no json", b"{}"]), output=b"\n".join(results))
    external = await read_results(api, URL, "batch_1", tmp_path)
    assert external.batch is batch
    outcomes = external.outcomes
    answers = {custom_id: outcome.body["id"] for custom_id, outcome in outcomes.items() if isinstance(outcome, Answer)}
    assert answers == {expected_id(BODIES[0], 0): "0", expected_id(BODIES[0], 1): "2"}
    assert outcomes[expected_id(BODIES[1], 0)] is MISSING_RESULT
    assert external.outlines == [outline_body(orjson.dumps(body)) for body in BODIES]


async def test_the_endpoint_of_a_request_counts_more_than_the_batchs(tmp_path):
    """A gateway may show the endpoint of chats for a batch of embeddings."""
    request = orjson.dumps({"custom_id": "row", "url": "/v1/embeddings", "body": BODIES[0]})
    batch = Batch("batch_1", "completed", endpoint=ENDPOINT, input_file_id="input", output_file_id="output")
    api = StubAPI(batch, input=request, output=build_result_line("row", {"id": "0"}))
    [custom_id] = (await read_results(api, URL, "batch_1", tmp_path)).outcomes
    assert custom_id == build_custom_id(digest_body(URL, "/v1/embeddings", orjson.dumps(BODIES[0])), 0)


async def test_parameters_without_an_effect_are_no_part_of_a_response(tmp_path):
    """Other programs may leave out `store` and the defaults of sampling."""
    body = {"model": "m", "input": "Hello", "temperature": 1.0, "store": False}
    request = orjson.dumps({"custom_id": "row", "url": "/v1/responses", "body": body})
    batch = Batch("batch_1", "completed", endpoint="/v1/responses", input_file_id="input", output_file_id="output")
    api = StubAPI(batch, input=request, output=build_result_line("row", {"id": "0"}))
    [custom_id] = (await read_results(api, URL, "batch_1", tmp_path)).outcomes
    identity = orjson.dumps({"model": "m", "input": "Hello"})
    assert custom_id == build_custom_id(digest_body(URL, "/v1/responses", identity), 0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch("batch_1", "in_progress", input_file_id="input"), "can be adopted when it has ended"),
        (Batch("batch_1", "completed"), "names no input file of batch batch_1"),
    ],
)
async def test_a_batch_in_progress_or_without_input_file_is_an_error(batch, message, tmp_path):
    with pytest.raises(OpenAIBatchError, match=message):
        await read_results(StubAPI(batch), URL, "batch_1", tmp_path)
