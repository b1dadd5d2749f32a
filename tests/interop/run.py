"""`make interop`: a pipeline against servers that are not ours, which speak the Batch API in their own way.

No weights are needed: what has to answer is the sandbox, synchronously, or the server itself by an echo. For each
server ten rows go through a Task, one of which fails where that can be arranged; then once more without the ledger, as
on another machine. One line a server says what was seen.
"""

# No `from __future__ import annotations`: distilabel's `agenerate` is checked by its annotations.

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
from distilabel_openai_batch.sandbox import RequestFailure, Sandbox, Settings

ENVIRONMENTS = Path(__file__).parents[2] / ".interop"
START_SECONDS = 120.0
ROWS = [{"instruction": f"Say number {i}."} for i in range(10)]
FAILING = RequestFailure(contains="Say number 7.", message="No sevens.", endpoint="sync")


class EchoedLLM(OpenAIBatchLLM):
    """For a server whose answers are the requests' bodies: it sends the completion along that it wants to be given."""

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> Any:  # type: ignore[override]
        text = input if isinstance(input, str) else input[-1]["content"]
        choice = {"message": {"role": "assistant", "content": f"Echo: {text}"}}
        return await super().agenerate(input, num_generations=num_generations, extra_body={"choices": [choice]})


@contextmanager
def running(server: Server, bin: Path, folder: Path, upstream: str) -> Iterator[str]:
    """The server, from when it answers until the context ends."""
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
                httpx.get(f"{base_url}/batches", timeout=5.0).raise_for_status()
                break
            except httpx.HTTPError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log.read_text(errors="replace")[-2_000:]
                    raise RuntimeError(f"{server.name} did not start ({error}); it said:\n{said}") from None
                time.sleep(0.5)
        yield base_url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def generations(server: Server, base_url: str, folder: Path) -> list[str | None]:
    """What a pipeline makes of the rows, with a ledger and a cache in the folder."""
    llm_class = EchoedLLM if server.echoes else OpenAIBatchLLM
    llm = llm_class(model=server.model, base_url=base_url, api_key="anything", ledger_dir=str(folder / "ledger"))
    with Pipeline(name=f"interop-{server.name}", cache_dir=folder / "cache") as pipeline:
        LoadDataFromDicts(data=ROWS) >> TextGeneration(name="generate", llm=llm)
    return [row["generation"] for row in pipeline.run(use_cache=False)["default"]["train"]]


def check(server: Server, texts: list[str | None]) -> None:
    """Each row has its own answer, and the one that fails has none.

    Raises:
        AssertionError: one does not.
    """
    assert len(texts) == len(ROWS), texts
    for row, text in zip(ROWS, texts, strict=True):
        if not server.echoes and FAILING.contains in row["instruction"]:
            assert text is None, text
        else:
            # Both the echo and the sandbox quote the question.
            assert text is not None, row
            assert row["instruction"].rstrip(".") in text, (row, text)


def run(server: Server, bin: Path) -> str:
    """Runs the pipeline twice, and says what was seen."""
    with (
        tempfile.TemporaryDirectory(prefix="interop-") as temporary,
        Sandbox(Settings(failures=[FAILING])) as sandbox,
        running(server, bin, Path(temporary), sandbox.base_url) as base_url,
    ):
        first, second = Path(temporary, "first"), Path(temporary, "second")
        check(server, generations(server, base_url, first))
        [batch] = httpx.get(f"{base_url}/batches").json()["data"]
        asked = sandbox.books().sync
        check(server, generations(server, base_url, second))
        # What failed for good is asked again by a later run; what was answered is not.
        assert sandbox.books().sync == asked, "the second run bought answers again"
        jobs = httpx.get(f"{base_url}/batches").json()["data"]
    failed = 0 if server.echoes else 1
    assert len(jobs) == 1 + failed, jobs
    counts = batch.get("request_counts")
    return (
        f"{len(ROWS) - failed} of {len(ROWS)} rows answered, {failed} failed as it should; batch {batch['id']} was"
        f" {batch['status']}, window {batch.get('completion_window')}, counts {counts}, output file"
        f" {batch.get('output_file_id')!r}, error file {batch.get('error_file_id')!r}; a run without the ledger found"
        " them on the server"
    )


def main() -> int:
    """Runs all of them, or those that are named; returns how many did not do what they should."""
    wrong = 0
    lines = []
    for server in SERVERS:
        if sys.argv[1:] and server.name not in sys.argv[1:]:
            continue
        try:
            bin = install(server, ENVIRONMENTS)
            seen = f"skipped: no Python {' or '.join(server.pythons)} here" if bin is None else run(server, bin)
        except (AssertionError, RuntimeError, subprocess.CalledProcessError) as error:
            wrong += 1
            seen = f"WRONG: {error!r}"
        lines.append(f"{server.name} {server.version}: {seen}")
    print("\n".join(lines))
    return wrong


if __name__ == "__main__":
    sys.exit(main())
