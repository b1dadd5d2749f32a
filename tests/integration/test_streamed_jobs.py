"""Jobs of a stream whose rows are taken batch by batch."""

from __future__ import annotations

import time

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults


@pytest.mark.parametrize("ordered", [True, False])
def test_each_job_of_a_stream_is_full_except_the_last(sandbox, ordered):
    """The rows of a job leave the stream in groups of two; the next job waits for the room of all its rows."""
    llm = OpenAIBatchLLM(model="gpt-6.1-luna", max_requests_per_job=4, max_jobs=2, min_poll_interval=0.02)
    data = [{"instruction": f"Say {number}."} for number in range(22)]
    with Pipeline(name="streamed"):
        stream = StreamBatchResults(
            task=TextGeneration(llm=llm, input_batch_size=2), data=data, batch_size=2, ordered=ordered
        )
    stream.load()

    rows = []
    for batch, _ in stream.process():
        rows += batch
        # The next step takes its time: meanwhile the stream could submit the rows for which there is room.
        time.sleep(0.1)

    stream.unload()
    assert sorted(row["instruction"] for row in rows) == sorted(row["instruction"] for row in data)
    assert all(row["generation"] for row in rows)
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [2, 4, 4, 4, 4, 4]
