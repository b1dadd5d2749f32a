"""Figure `ledger`: commands on a large ledger, the time of intents, and the bytes of the ledger."""

from __future__ import annotations

import random
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from typer.testing import CliRunner

from benchmarks.figure import Cell, Figure, Target
from benchmarks.questions import MODEL
from benchmarks.runs import Runs
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Request, Shard, build_custom_id, digest_body
from distilabel_openai_batch.cli import application
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.packs import PACK_SIZE
from distilabel_openai_batch.ledger.states import ScopeName

_ENDPOINT = "/v1/chat/completions"
_SCOPE = ScopeName("pipeline", "task", "https://api.example.com/v1/")
_PER_JOB = 50_000
_REPETITIONS = 3

_MAX_COMMAND_SECONDS = 0.5
_MAX_INTENT_SECONDS = 5.0
_INTENT = 1_000_000

_MAX_BYTES = 1.2

# Text of the answers whose size in the ledger is measured: short, and as long as the sandbox's own.
_CHARACTERS = (60, 1_300)
_MEASURED = 50_000
_LINES = PACK_SIZE
_WORDS = random.Random(5)
_VOCABULARY = ["".join(_WORDS.choices(string.ascii_lowercase, k=_WORDS.randint(2, 8))) for _ in range(5_000)]
_LINE_OF_A_TEXT: dict[str, Any] = {
    "id": "batch_req_0123456789abcdef0123456789abcdef",
    "response": {
        "status_code": 200,
        "request_id": "0123456789abcdef",
        "body": {
            "id": "chatcmpl-0123456789abcdef0123456789",
            "object": "chat.completion",
            "model": MODEL,
            "usage": {"prompt_tokens": 125, "completion_tokens": 15, "total_tokens": 140},
        },
    },
}


def measure(runs: Runs) -> Figure:
    """Build a ledger of a few large jobs, and measure the commands that read it."""
    size, intents = runs.plan.ledger, min(runs.plan.ledger, _INTENT)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        build_ledger(Path(folder), size, _CHARACTERS[0])
        commands = ("jobs", "failures", "show pipeline/task")
        seconds = {command: _time_command(command, folder) for command in commands}
        intent = _time_intents(Path(folder), intents)
    shares = _measure_bytes(min(size, _MEASURED))
    rows: list[dict[str, Cell]] = [
        *({"work": f"`{name}`", "requests": size, "value": f"{value:.3f} s"} for name, value in seconds.items()),
        {"work": "intents of new requests", "requests": intents, "value": f"{intent:.2f} s"},
        *(
            {
                "work": f"bytes of the ledger, {name}",
                "requests": min(size, _MEASURED),
                "value": f"{share:.2f} × the lines",
            }
            for name, share in shares.items()
        ),
    ]
    slowest = max(seconds, key=lambda name: seconds[name])
    largest = max(share for name, share in shares.items() if "compressed" not in name)
    return Figure(
        name="ledger",
        title="A large ledger",
        method=f"A script plans and collects {size:,} requests in jobs of {_PER_JOB:,}, with one failure in each job."
        f" Seconds of each command without its imports, the median of {_REPETITIONS} calls; of the intents of"
        f" {intents:,} further requests, in jobs of {_PER_JOB:,}; and bytes of a ledger's file for each byte of the"
        " result lines, whose texts are random words.",
        rows=rows,
        targets=[
            Target(
                f"each command within {_MAX_COMMAND_SECONDS} s",
                seconds[slowest] <= _MAX_COMMAND_SECONDS,
                f"`{slowest}`: {seconds[slowest]:.2f} s",
            ),
            Target(f"the intents within {_MAX_INTENT_SECONDS:.0f} s", intent <= _MAX_INTENT_SECONDS, f"{intent:.1f} s"),
            Target(f"at most {_MAX_BYTES} times the result lines", largest <= _MAX_BYTES, f"{largest:.2f} times"),
        ],
    )


def build_ledger(directory: Path, requests: int, characters: int, *, is_compressed: bool = False) -> int:
    """Write a ledger of collected jobs, as a session does.

    Args:
        directory: the directory of the ledger.
        requests: the number of requests.
        characters: the length of each answer's text, about.
        is_compressed: whether the ledger compresses the lines.

    Returns:
        The bytes of the result lines.
    """
    number = 0
    lines = _make_lines(characters)
    with closing(Ledger(directory, _SCOPE, is_compressed=is_compressed)) as ledger:
        for start in range(0, requests, _PER_JOB):
            custom_ids = [build_custom_id(uuid4().hex, 0) for _ in range(min(_PER_JOB, requests - start))]
            job, _ = ledger.jobs.plan(Shard.of([Request(name, _ENDPOINT, MODEL, b"{}") for name in custom_ids]))
            batch = Batch(f"batch_{start}", "completed", completed=len(custom_ids) - 1, failed=1, total=len(custom_ids))
            job = ledger.jobs.mark_ended(ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file"), batch), batch)
            request_ids = ledger.requests.request_ids(job)
            for first in range(0, len(custom_ids), PACK_SIZE):
                chunk = custom_ids[first : first + PACK_SIZE]
                outcomes: dict[str, Outcome] = {
                    name: Answer(name.encode().join(parts), (125, 15))
                    for name, parts in zip(chunk, lines, strict=False)
                }
                if not first:
                    outcomes[chunk[0]] = Failure("Bad.", 400, "bad")
                number += sum(len(outcome.line) for outcome in outcomes.values() if isinstance(outcome, Answer))
                ledger.requests.record(request_ids, outcomes)
            ledger.jobs.mark_collected(job, MISSING_RESULT)
    return number


def _make_lines(characters: int) -> list[tuple[bytes, bytes]]:
    """Return result lines of random words as the server writes them, each in two parts around the `custom_id`."""
    lines = []
    for _ in range(_LINES):
        text = " ".join(_WORDS.choices(_VOCABULARY, k=max(1, characters // 6)))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        response = _LINE_OF_A_TEXT["response"]
        body = {**response["body"], "choices": [choice]}
        line = {**_LINE_OF_A_TEXT, "custom_id": "", "response": {**response, "body": body}}
        before, after = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).split(b'"custom_id":""')
        lines.append((before + b'"custom_id":"', b'"' + after))
    return lines


def _measure_bytes(requests: int) -> dict[str, float]:
    """Return the bytes of a ledger's file for each byte of its result lines."""
    shares = {}
    for characters in _CHARACTERS:
        for kind in ("", ", compressed"):
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                lines = build_ledger(Path(folder), requests, characters, is_compressed=bool(kind))
                shares[f"answers of {characters:,} characters{kind}"] = (
                    Path(folder) / FILE_NAME
                ).stat().st_size / lines
    return shares


def _time_command(command: str, folder: str) -> float:
    """Return the seconds of a command in this process, the median of some calls."""
    arguments = [*command.split(), "--ledger-dir", folder]
    runner = CliRunner()

    def invoke() -> None:
        result = runner.invoke(application.app, arguments)
        if result.exit_code:
            raise RuntimeError(f"`{command}` ended with {result.exit_code}: {result.output}")

    invoke()
    return statistics.median(_seconds(invoke) for _ in range(_REPETITIONS))


def _time_intents(directory: Path, requests: int) -> float:
    """Return the seconds in which a session records the intents of new requests."""
    with closing(Ledger(directory, _SCOPE)) as ledger:
        shards = []
        for start in range(0, requests, _PER_JOB):
            numbers = range(start, min(start + _PER_JOB, requests))
            custom_ids = [build_custom_id(digest_body("", "", b"%d" % number), 0) for number in numbers]
            members = [Request(custom_id, _ENDPOINT, MODEL, b"{}") for custom_id in custom_ids]
            shards.append(Shard.of(members))
        return sum(_seconds(lambda shard=shard: ledger.jobs.plan(shard)) for shard in shards)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
