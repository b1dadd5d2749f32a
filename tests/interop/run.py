"""Run a pipeline against other servers with a Batch API (`make interop`).

No model weights are needed: the server forwards requests or whole batches to the sandbox, or echoes the request's body.
For each server a Task generates ten rows; a row fails unless the server echoes. A second run has an empty ledger, like
a run on another machine. Servers that forward batches also have several jobs, and an expired one. The output is one
line per server.
"""

# distilabel checks the annotations of `agenerate` at runtime → no `from __future__ import annotations` here.

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from distilabel.typing import FormattedInput
from servers import SERVERS, Server, install

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.sandbox import BatchFault, RequestFailure, Sandbox, Settings

ENVIRONMENTS = Path(__file__).parents[2] / ".interop"
START_SECONDS = 120.0
ROWS = [{"instruction": f"Say number {i}."} for i in range(10)]
FAILURE = RequestFailure(contains="Say number 7.", message="No sevens.")


class EchoedLLM(OpenAIBatchLLM):
    """LLM for a server that echoes the body of each request: the body has the completion as an extra field."""

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> Any:  # type: ignore[override]
        text = input if isinstance(input, str) else input[-1]["content"]
        choice = {"message": {"role": "assistant", "content": f"Echo: {text}"}}
        return await super().agenerate(input, num_generations=num_generations, extra_body={"choices": [choice]})


@contextmanager
def running_server(server: Server, bin: Path, folder: Path, upstream: str) -> Iterator[str]:
    """Start a server, yield its base URL as soon as `GET /batches` succeeds, and stop the server at the end.

    Raises:
        RuntimeError: the server ended, or did not answer within `START_SECONDS`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(bin, folder, port, upstream),
            cwd=folder,
            env=os.environ | {"HOME": str(folder)} | server.environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.get(f"{base_url}/batches{server.query}", timeout=5.0).raise_for_status()
                break
            except httpx.HTTPError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    output_tail = log.read_text(errors="replace")[-2_000:]
                    raise RuntimeError(f"{server.name} did not start ({error}); its output:\n{output_tail}") from None
                time.sleep(0.5)
        yield base_url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def generations(server: Server, base_url: str, folder: Path, **options: Any) -> list[str | None]:
    """Return the generations of a pipeline over the rows, with a ledger and a cache in the folder."""
    llm_class = EchoedLLM if server.echoes else OpenAIBatchLLM
    llm = llm_class(
        model=server.model,
        base_url=base_url + server.query,
        api_key="anything",
        ledger_dir=str(folder / "ledger"),
        **server.options,
        **options,
    )
    with Pipeline(name=f"interop-{server.name}", cache_dir=folder / "cache") as pipeline:
        LoadDataFromDicts(data=ROWS) >> TextGeneration(name="generate", llm=llm)
    return [row["generation"] for row in pipeline.run(use_cache=False)["default"]["train"]]


def check(server: Server, texts: list[str | None], *, has_failure: bool = True) -> None:
    """Check that each row has its own answer, and that the failing row has none.

    Raises:
        AssertionError: a row has another answer.
    """
    assert len(texts) == len(ROWS), texts
    for row, text in zip(ROWS, texts, strict=True):
        if has_failure and not server.echoes and FAILURE.contains in row["instruction"]:
            assert text is None, text
        else:
            # Both the echo and the sandbox quote the instruction.
            assert text is not None, row
            assert row["instruction"].rstrip(".") in text, (row, text)


def answered(sandbox: Sandbox) -> int:
    """Return the number of requests that the sandbox answered, synchronously or in batches."""
    books = sandbox.books()
    return books.sync + sum(books.billed.values())


def list_batches(server: Server, base_url: str) -> list[dict[str, Any]]:
    """Return the batches that the server lists."""
    return list(httpx.get(f"{base_url}/batches{server.query}", timeout=30.0).json()["data"])


def run(server: Server, bin: Path) -> str:
    """Run the pipeline twice, in several jobs and with an expired batch, and return a summary of the first batch."""
    with (
        tempfile.TemporaryDirectory(prefix="interop-") as temporary,
        Sandbox(Settings(failures=[FAILURE])) as sandbox,
        running_server(server, bin, Path(temporary), sandbox.base_url) as base_url,
    ):
        check(server, generations(server, base_url, Path(temporary, "first")))
        listed = list_batches(server, base_url)
        failed = 0 if server.echoes else 1
        if server.lists_batches:
            [batch] = listed
            found = answered(sandbox)
            check(server, generations(server, base_url, Path(temporary, "second")))
            # Without the ledger only the failed request is submitted again, and the sandbox counts no failures.
            assert answered(sandbox) == found, "the second run submitted answered requests again"
            batches = list_batches(server, base_url)
            assert len(batches) == 1 + failed, batches
        else:
            assert not listed, listed
            [batch] = sandbox.books().batches
        if server.forwards_batches:
            run_forwarded(server, sandbox, base_url, Path(temporary))
    summary = (
        f"{len(ROWS) - failed} of {len(ROWS)} rows answered, {failed} failed as expected; batch {batch['id']} was"
        f" {batch['status']}, window {batch.get('completion_window')}, counts {batch.get('request_counts')}, output"
        f" file {batch.get('output_file_id')!r}, error file {batch.get('error_file_id')!r}"
    )
    if server.lists_batches:
        summary += "; a run without the ledger found the batch on the server"
    if server.forwards_batches:
        summary += "; several jobs had each answer once"
        summary += ", and an expired batch kept its answers" if server.keeps_expired_results else ""
    return summary


def run_forwarded(server: Server, sandbox: Sandbox, base_url: str, folder: Path) -> None:
    """Run the pipeline in several jobs, and with a batch that expires with half of its answers.

    Raises:
        AssertionError: a row has another answer, or a request was answered twice.
    """
    sandbox.reset(Settings())
    check(server, generations(server, base_url, folder / "several", max_requests_per_job=4), has_failure=False)
    assert len(sandbox.books().batches) == 3
    assert answered(sandbox) == len(ROWS)
    if not server.keeps_expired_results:
        return
    sandbox.reset(Settings())
    sandbox.add_fault(BatchFault(kind="expire"))
    check(server, generations(server, base_url, folder / "expired"), has_failure=False)
    statuses = [batch["status"] for batch in sandbox.books().batches]
    assert statuses == ["expired", "completed"], statuses
    assert answered(sandbox) == len(ROWS)


def main() -> int:
    """Test all servers, or the servers named as arguments, and return the number of servers that failed."""
    failed = 0
    lines = []
    for server in SERVERS:
        if sys.argv[1:] and server.name not in sys.argv[1:]:
            continue
        try:
            bin = install(server, ENVIRONMENTS)
            summary = f"skipped: no Python {' or '.join(server.pythons)} here" if bin is None else run(server, bin)
        except (AssertionError, RuntimeError, subprocess.CalledProcessError) as error:
            failed += 1
            summary = f"FAILED: {error!r}"
        lines.append(f"{server.name} {server.version}: {summary}")
    print("\n".join(lines))
    return failed


if __name__ == "__main__":
    sys.exit(main())
