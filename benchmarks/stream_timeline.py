"""When rows reach the next step: `StreamBatchResults` against a Task that waits for all of its jobs.

    python benchmarks/stream_timeline.py

Eight jobs of 50 requests, two in flight at a time, each under way for three seconds at the sandbox.
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
def Clock(inputs: StepInput):  # noqa: D103
    yield [row | {"seen_at": time.time()} for row in inputs]


def measure(streams: bool, folder: str, sandbox: Sandbox) -> str:
    """Runs one of the two, and returns a row of the table."""
    sandbox.reset()
    sandbox.configure(in_progress_seconds=3.0)
    os.environ["DISTILABEL_OPENAI_BATCH_DIR"] = f"{folder}/ledger-{streams}"
    llm = OpenAIBatchLLM(model="gpt-4o-mini", max_requests_per_job=50, max_jobs=2, min_poll_interval=0.2)
    with Pipeline(name="timeline", cache_dir=folder) as pipeline:
        task = TextGeneration(llm=llm)
        clock = Clock(input_batch_size=50)
        if streams:
            StreamBatchResults(task=task, data=ROWS) >> clock
        else:
            LoadDataFromDicts(data=ROWS) >> task >> clock
    rows = pipeline.run(use_cache=False)["default"]["train"]
    intervals = sandbox.books().intervals
    begun, ended = min(interval.start for interval in intervals), max(interval.end for interval in intervals)
    seen = sorted(row["seen_at"] - begun for row in rows)
    moments = (seen[0], seen[len(seen) // 2], seen[-1], ended - begun)
    return f"| {'stream' if streams else 'Task'} | {' | '.join(f'{moment:.1f}' for moment in moments)} |"


def main() -> None:
    """Prints the table, in seconds since the first job was created."""
    with TemporaryDirectory() as folder, Sandbox() as sandbox:
        os.environ |= {"OPENAI_BASE_URL": sandbox.base_url, "OPENAI_API_KEY": "any"}
        table = [measure(streams, folder, sandbox) for streams in (False, True)]
    print("| | first row | half of the rows | last row | last job ended |\n|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
