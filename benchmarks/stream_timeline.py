"""Timeline of rows that reach the next step: `StreamBatchResults`, and a Task that waits for all of its jobs.

    python benchmarks/stream_timeline.py

The sandbox runs eight jobs of 50 requests, two at a time, for three seconds each.
"""

import os
import time
from tempfile import TemporaryDirectory

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults
from distilabel_openai_batch.sandbox import Sandbox

ROWS = [{"instruction": f"Say number {number}."} for number in range(400)]


@step(inputs=["generation"], outputs=["seen_at"])
def Clock(inputs: StepInput):
    """Add the time at which a row arrives."""
    yield [row | {"seen_at": time.time()} for row in inputs]


def measure(stream: bool, folder: str, sandbox: Sandbox) -> str:
    """Run the pipeline, streamed or not, and return its row of the table."""
    sandbox.reset()
    sandbox.configure(in_progress_seconds=3.0)
    os.environ["DISTILABEL_OPENAI_BATCH_DIR"] = f"{folder}/ledger-{stream}"
    llm = OpenAIBatchLLM(model="gpt-4o-mini", max_requests_per_job=50, max_jobs=2, min_poll_interval=0.2)
    with Pipeline(name="timeline", cache_dir=folder) as pipeline:
        task = TextGeneration(llm=llm)
        clock = Clock(input_batch_size=50)
        if stream:
            StreamBatchResults(task=task, data=ROWS) >> clock
        else:
            LoadDataFromDicts(data=ROWS) >> task >> clock
    rows = pipeline.run(use_cache=False)["default"]["train"]
    intervals = sandbox.books().intervals
    started, ended = min(interval.start for interval in intervals), max(interval.end for interval in intervals)
    arrivals = sorted(row["seen_at"] - started for row in rows)
    seconds = (arrivals[0], arrivals[len(arrivals) // 2], arrivals[-1], ended - started)
    return f"| {'stream' if stream else 'Task'} | {' | '.join(f'{value:.1f}' for value in seconds)} |"


def main() -> None:
    """Print the table, in seconds since the first job was created."""
    with TemporaryDirectory() as folder, Sandbox() as sandbox:
        os.environ |= {"OPENAI_BASE_URL": sandbox.base_url, "OPENAI_API_KEY": "any"}
        table = [measure(stream, folder, sandbox) for stream in (False, True)]
    print("| | first row | half of the rows | last row | last job ended |\n|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
