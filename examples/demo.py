"""Run `pipeline.yaml` against the sandbox, without a key and without a network: `make demo`.

A batch takes minutes to hours at OpenAI. The sandbox takes eight seconds, so that the log shows each status.
"""

from __future__ import annotations

import os
from pathlib import Path

from distilabel.distiset import Distiset
from distilabel.pipeline import Pipeline
from rich.console import Console
from rich.table import Table

from distilabel_openai_batch.sandbox import Books, Sandbox, Settings

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path("demo-output")
LEDGER = OUTPUT / "ledger"


def run(sandbox: Sandbox) -> Distiset:
    """Run the pipeline as `distilabel pipeline run --config examples/pipeline.yaml` does."""
    os.environ["OPENAI_BASE_URL"] = sandbox.base_url
    os.environ["OPENAI_API_KEY"] = "the-sandbox-takes-any-key"
    # Keep the demo's jobs out of the user's ledger.
    os.environ.setdefault("DISTILABEL_OPENAI_BATCH_DIR", str(LEDGER))
    pipeline = Pipeline.from_yaml(ROOT / "examples" / "pipeline.yaml")
    quick = {"llm": {"min_poll_interval": 0.5}}
    load = {"data_files": str(ROOT / "examples" / "instructions.jsonl")}
    return pipeline.run(parameters={"load": load, "generate": quick, "judge": quick}, use_cache=False)


def show(distiset: Distiset, books: Books) -> None:
    """Print three rows, the numbers of jobs and requests, and the dataset's path."""
    dataset = distiset["default"]["train"]
    distiset.save_to_disk(str(OUTPUT))
    console = Console()
    table = Table(title=f"3 of {len(dataset)} rows", show_lines=True)
    for column in ("instruction", "first answer", "second answer", "ratings"):
        table.add_column(column, no_wrap=column == "ratings")
    for row in dataset.select(range(3)):
        answers = [text if len(text) < 120 else f"{text[:119]}…" for text in row["generation"]]
        table.add_row(row["instruction"], *answers, str(row["ratings"]))
    console.print(table)
    console.print(
        f"{len(books.batches)} jobs with {len(books.billed)} requests answered the {len(dataset)} rows of 2 Tasks;"
        f" {sum(times > 1 for times in books.billed.values())} requests were billed twice,"
        f" {books.sync} went to the synchronous endpoints."
    )
    console.print(f"The dataset is in {OUTPUT}/: Distiset.load_from_disk({str(OUTPUT)!r})", soft_wrap=True)


def main() -> None:
    """Start the sandbox, run the pipeline, and show the dataset."""
    with Sandbox(Settings(validating_seconds=1.0, in_progress_seconds=6.0, finalizing_seconds=1.0)) as sandbox:
        if distiset := run(sandbox):
            show(distiset, sandbox.books())


if __name__ == "__main__":
    main()
