"""A Batch API of one batch without HTTP, which echoes requests and records calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.size_limits import SizeLimit

CHAT = "/v1/chat/completions"


def make_shard(requests: int = 3, model: str = "gpt-4o-mini") -> Shard:
    """Return a shard whose answers are `{"question": 0}`, `{"question": 1}`, …"""
    return Shard([Request(f"{i:032x}-0", CHAT, model, b'{"question":%d}' % i) for i in range(requests)], 99)


class FakeBatchAPI:
    """Batch API that answers each request with its own body.

    Args:
        statuses: the status at each poll; the last one stays.
        errors: the errors of a failed batch.
        unanswered: the number of requests without a result, at the end of the file.
        completed: the number of answers that a poll counts.

    Attributes:
        has_files: whether the server has the uploaded files.
        is_azure: whether the server is Azure's.
    """

    def __init__(
        self, *statuses: str, errors: tuple[BatchError, ...] = (), unanswered: int = 0, completed: int = 0
    ) -> None:
        self.completed = completed
        self.statuses = list(statuses) or ["completed"]
        self.errors = errors
        self.unanswered = unanswered
        self.has_files = True
        self.is_azure = False
        self.calls: list[str] = []
        self.uploaded: list[bytes] = []
        self.batches: dict[str, str] = {}

    @staticmethod
    def input_line(request: Request) -> bytes:
        """Return a request's line of an input file."""
        return request.line()

    @property
    def files(self) -> FakeBatchAPI:
        """Return this object, which has the methods of `FilesAPI` too."""
        return self

    def batch(self, batch_id: str) -> Batch:
        """Return the batch with its next status."""
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        is_refused = status == "failed"
        return Batch(
            batch_id,
            status,
            endpoint=CHAT,
            input_file_id="file-in",
            output_file_id=None if is_refused else "file-out",
            completed=0 if is_refused else self.completed,
            errors=self.errors if is_refused else (),
        )

    async def wait_for_output_file(self, batch: Batch) -> Batch:
        """Return the batch, which shows its files from the start."""
        return batch

    def output_lines(self) -> list[bytes]:
        """Return the lines of the output file."""
        answered = self.uploaded[: len(self.uploaded) - self.unanswered]
        return [
            line.replace(b'"body":', b'"response":{"status_code":200,"body":', 1)[:-2] + b"}}\n" for line in answered
        ]

    async def upload(self, path: Path, name: str) -> str:
        self.calls.append("upload")
        self.uploaded = path.read_bytes().splitlines(keepends=True)
        return "file-in"

    async def exists(self, file_id: str) -> bool:
        self.calls.append("look for the file")
        return self.has_files

    async def create(self, input_file_id, endpoint, completion_window, key, metadata) -> Batch:
        self.calls.append("create")
        self.batches[key] = f"batch_{len(self.batches)}"
        return self.batch(self.batches[key])

    async def find(self, key, input_file_id, since) -> Batch | None:
        self.calls.append("find")
        return self.batch(self.batches[key]) if key in self.batches else None

    async def retrieve(self, batch_id: str) -> Batch:
        self.calls.append("retrieve")
        return self.batch(batch_id)

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        self.calls.append("retrieve")
        return {batch_id: self.batch(batch_id) for batch_id in batch_ids}

    async def cancel(self, batch_id: str) -> None:
        self.calls.append("cancel")
        self.statuses = ["cancelling", "cancelled"]

    async def download_more(self, file_id: str, path: Path, limit: SizeLimit) -> None:
        pass

    async def download(self, file_id: str, path: Path, limit: SizeLimit, *, is_new: bool = False) -> None:
        self.calls.append("download")
        path.write_bytes(b"".join(self.output_lines()))

    async def delete(self, file_id: str) -> None:
        self.calls.append(f"delete {file_id}")

    async def delete_by_name(self, name: str, keep: str | None = None) -> None:
        self.calls.append("delete the uploads")


class CountingBatchAPI(FakeBatchAPI):
    """Batch API of a batch with 1,000 requests that answers one more at each poll."""

    def batch(self, batch_id: str) -> Batch:
        """Return the batch with its next status and counts."""
        batch = super().batch(batch_id)
        done = 0 if batch.status == "validating" else 1_000 - len(self.statuses)
        return replace(batch, completed=done, total=1_000, in_progress_at=5.0 if done else None)


def ignore(outcomes) -> None:
    """Drop delivered outcomes."""
