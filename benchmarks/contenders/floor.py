"""Lower bound for every contender: write and read each line as JSON once, upload and download the bytes once."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import orjson

from benchmarks.meter import Meter, Workload, run_contender
from benchmarks.questions import MAX_TOKENS, MODEL

_KEY = {"Authorization": "Bearer sk-benchmark"}
_SHARD = 50_000


def answer(workload: Workload, meter: Meter) -> tuple[Sequence[object], Sequence[str | None]]:
    """Upload the questions in files as large as a job's, download the same files and parse their lines."""
    questions = workload.questions()
    texts: list[str | None] = []
    with meter, httpx.Client(base_url=workload.base_url, headers=_KEY, timeout=600.0) as client:
        for start in range(0, len(questions), _SHARD):
            texts += _round_trip(client, Path(workload.folder), questions[start : start + _SHARD], start)
    return texts, texts


def _round_trip(client: httpx.Client, folder: Path, questions: Sequence[str], start: int) -> list[str | None]:
    path, copy = folder / "floor.jsonl", folder / "floor-copy.jsonl"
    with path.open("wb") as file:
        for number, question in enumerate(questions, start):
            messages = [{"role": "user", "content": question}]
            body = {"model": MODEL, "messages": messages, "max_tokens": MAX_TOKENS}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    with path.open("rb") as file:
        reply = client.post("files", data={"purpose": "batch"}, files={"file": ("floor.jsonl", file)})
    reply.raise_for_status()
    with client.stream("GET", f"files/{reply.json()['id']}/content") as stream, copy.open("wb") as file:
        for chunk in stream.iter_bytes():
            file.write(chunk)
    with copy.open("rb") as file:
        return [orjson.loads(line)["body"]["messages"][0]["content"] for line in file]


if __name__ == "__main__":
    run_contender(answer)
