"""The account that everything in a sandbox belongs to: its files, its batches, its books."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from . import files as stored
from .answers import Answer, answer, canonical
from .batches import Batch, check_creation
from .errors import ApiError
from .fault_schedule import Script
from .files import StoredFile
from .records import Call, Interval, most_at_once
from .results import Results, fail
from .settings import Settings
from .timeline import TERMINAL, Stage
from .validation import Problem, examine, file_not_found, token_limit_exceeded

# Calls older than the last so many are forgotten.
_MOST_CALLS = 200_000

# So long, at most, the work on a batch gives way to callers before its next few hundred lines, a hundredth of a second.
_WAY_SECONDS = 0.05


class Organization:
    """Files, batches and books. Its methods are called by the event loop; the batches are worked on in threads.

    Args:
        settings: how to behave.
        clock: tells the time, in seconds since the epoch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self.script = Script(settings.failures)
        self.calls: deque[Call] = deque(maxlen=_MOST_CALLS)
        self.callers = 0
        """Calls that are being answered."""
        self.sync_bodies: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._files: dict[str, StoredFile] = {}
        self._batches: dict[str, Batch] = {}
        self._pending: set[Future[None]] = set()
        self._directory = tempfile.TemporaryDirectory(prefix="openai-batch-sandbox-", ignore_cleanup_errors=True)
        # A long job must not keep the short ones from being validated.
        self._workers = ThreadPoolExecutor(max_workers=8, thread_name_prefix="batch")
        # Threads that compute side by side only keep one another from running.
        self._answering = threading.Lock()
        # Keys are told apart by a hash under a salt that is never written anywhere.
        self._salt = secrets.token_bytes(16)

    def close(self) -> None:
        """Stops working and removes every file."""
        self._closed.set()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._directory.cleanup()

    def configure(self, settings: Settings) -> None:
        """Changes the settings while running."""
        with self._lock:
            # A batch that was unfinished until now cannot have ended before now.
            for batch in self._batches.values():
                self._advance(batch)
            if settings.failures != self.settings.failures:
                self.script.replace_failures(settings.failures)
            self.settings = settings

    def pending(self) -> Iterable[Future[None]]:
        """Returns the work that the threads have yet to finish."""
        with self._lock:
            return list(self._pending)

    # Who is asking

    def owner(self, authorization: str | None) -> str:
        """Returns whose files and batches a caller may see.

        Args:
            authorization: the `Authorization` header.

        Raises:
            ApiError: 401, without an accepted key.
        """
        scheme, _, key = ("" if authorization is None else authorization).partition(" ")
        accepted = self.settings.api_keys
        if scheme.lower() != "bearer" or not key.strip():
            message = (
                "You didn't provide an API key. You need to provide your API key in an Authorization header using "
                "Bearer auth (i.e. Authorization: Bearer YOUR_KEY)."
            )
            raise ApiError(401, message, code="invalid_api_key")
        if accepted is not None and key not in accepted:
            message = (
                "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
            )
            raise ApiError(401, message, code="invalid_api_key")
        if not self.settings.separate_keys:
            return ""
        return hashlib.blake2b(key.encode(), key=self._salt, digest_size=8).hexdigest()

    # Files

    def add_file(
        self, content: BinaryIO, filename: str, purpose: str | None, expires_after: Any, owner: str
    ) -> StoredFile:
        """Stores an upload.

        Args:
            content: the bytes; copied in small pieces.
            filename: the name it was sent with.
            purpose: what it is for.
            expires_after: when it is to vanish.
            owner: whose it is.

        Raises:
            ApiError: if the API would refuse it.
        """
        size = content.seek(0, 2)
        content.seek(0)
        stored.check_upload(filename, purpose, size)
        seconds = stored.check_expiry(expires_after, "expires_after")
        if seconds is None and purpose == "batch":
            seconds = stored.BATCH_FILE_SECONDS
        file_id = self.settings.dialect.new_id("file-")
        path = self._path(file_id)
        with path.open("wb") as target:
            shutil.copyfileobj(content, target, 1 << 20)
        return self._keep(file_id, path, filename, str(purpose), seconds, owner)

    def _path(self, name: str) -> Path:
        return Path(self._directory.name) / name

    def _keep(
        self, file_id: str, path: Path, filename: str, purpose: str, seconds: float | None, owner: str
    ) -> StoredFile:
        now = self.clock()
        expires_at = None if seconds is None else now + seconds
        file = StoredFile(file_id, path, path.stat().st_size, now, filename, purpose, expires_at, owner)
        with self._lock:
            self._files[file_id] = file
        return file

    def _find_file(self, file_id: str, owner: str) -> StoredFile | None:
        file = self._files.get(file_id)
        if file is None or file.owner != owner:
            return None
        return None if file.expires_at is not None and self.clock() >= file.expires_at else file

    def file(self, file_id: str, owner: str) -> StoredFile:
        """Returns a file.

        Raises:
            ApiError: 404.
        """
        with self._lock:
            # The files of a batch come into being when someone looks.
            self._advance_all()
            file = self._find_file(file_id, owner)
        if file is None:
            raise stored.no_such_file(file_id)
        return file

    def files(self, owner: str, purpose: str | None = None) -> list[StoredFile]:
        """Returns the files, newest first."""
        with self._lock:
            self._advance_all()
            found = [file for file_id in self._files if (file := self._find_file(file_id, owner)) is not None]
        return [file for file in reversed(found) if purpose in (None, file.purpose)]

    def delete_file(self, file_id: str, owner: str) -> None:
        """Deletes a file.

        Raises:
            ApiError: 404.
        """
        file = self.file(file_id, owner)
        with self._lock:
            del self._files[file_id]
        file.path.unlink(missing_ok=True)

    # Batches

    def create_batch(self, body: dict[str, Any], owner: str) -> dict[str, Any]:
        """Creates a batch; it is validated later.

        Args:
            body: the body of the call.
            owner: whose it is.

        Raises:
            ApiError: if the API would refuse it at once.
        """
        dialect = self.settings.dialect
        body = body | {"endpoint": dialect.endpoint(body.get("endpoint"))}
        check_creation(body, dialect.completion_windows)
        output_seconds = stored.check_expiry(body.get("output_expires_after"), "output_expires_after")
        with self._lock:
            now = self.clock()
            recent = sum(1 for _ in _since(self._batches, now - 3_600))
            if recent >= self.settings.max_batches_per_hour:
                message = (
                    f"Rate limit reached for batch creation: {self.settings.max_batches_per_hour} batches an hour."
                )
                raise ApiError(429, message, type="requests", code="rate_limit_exceeded", headers={"Retry-After": "60"})
            file = self._find_file(body["input_file_id"], owner)
            if file is not None and file.purpose != "batch":
                message = f"Invalid value for 'input_file_id': the purpose of file '{file.id}' must be 'batch'."
                raise ApiError(400, message, param="input_file_id", code="invalid_value")
            if file is not None and now < file.created_at + self.settings.upload_visible_after_seconds:
                file = None
            if file is not None and now < file.created_at + dialect.pending_seconds:
                raise ApiError(400, f"File '{file.id}' is pending.", param="input_file_id", code="invalid_request")
            batch = Batch(
                id=dialect.new_id("batch_"),
                input_file=file,
                input_file_id=body["input_file_id"],
                endpoint=body["endpoint"],
                metadata=body.get("metadata"),
                created_at=now,
                expires_at=now + self.settings.window_seconds,
                output_seconds=stored.BATCH_FILE_SECONDS if output_seconds is None else output_seconds,
                owner=owner,
                faults={fault.kind: fault for fault in self.script.for_batch()},
                dialect=dialect,
                completion_window=body["completion_window"],
            )
            if dialect.token_limit_at_once:
                self._refuse_too_many_tokens(batch)
            self._batches[batch.id] = batch
            # It is shown as it is before anyone has worked on it, as the API does.
            shown = batch.shown(Stage("validating", 0, {}))
            work = self._workers.submit(self._work, batch)
            self._pending.add(work)
        work.add_done_callback(self._finished)
        return shown

    def _finished(self, work: Future[None]) -> None:
        with self._lock:
            self._pending.discard(work)
        if not work.cancelled():
            # A mistake of ours: let it be seen rather than leave the batch unfinished for ever.
            work.result()

    def _find_batch(self, batch_id: str, owner: str) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None or batch.owner != owner:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return batch

    def batch(self, batch_id: str, owner: str) -> dict[str, Any]:
        """Returns a batch object.

        Raises:
            ApiError: 404.
        """
        with self._lock:
            batch = self._find_batch(batch_id, owner)
            return batch.shown(self._advance(batch))

    def batches(self, owner: str, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Returns a page of batch objects, newest first, and whether there are more.

        Args:
            owner: whose.
            after: the id of the last batch of the page before.
            limit: how many.

        Raises:
            ApiError: 404 if there is no batch `after`.
        """
        with self._lock:
            mine = [batch for batch in reversed(self._batches.values()) if batch.owner == owner]
            if after is not None:
                mine = mine[mine.index(self._find_batch(after, owner)) + 1 :]
            return [batch.shown(self._advance(batch)) for batch in mine[:limit]], len(mine) > limit

    def cancel_batch(self, batch_id: str, owner: str) -> dict[str, Any]:
        """Cancels a batch. One that is cancelling or cancelled already stays as it is.

        Raises:
            ApiError: 404, or 409 if it ended otherwise.
        """
        with self._lock:
            batch = self._find_batch(batch_id, owner)
            now = self._advance(batch)
            if now.status in TERMINAL and now.status != "cancelled":
                raise ApiError(409, f"Cannot cancel a batch with status '{now.status}'.")
            if batch.cancel_at is None and now.status != "cancelled":
                batch.cancel_at = self.clock()
                now = batch.stage(self.settings, batch.cancel_at)
            return batch.shown(now)

    # The work on a batch

    def _work(self, batch: Batch) -> None:
        """Validates a batch and answers its requests, in a thread."""
        settings = self.settings
        if batch.input_file is None:
            self._examined(batch, [file_not_found(batch.input_file_id)])
            return
        try:
            batch.examination = examine(batch.input_file.path, batch.endpoint, settings, self._give_way)
        except FileNotFoundError:
            self._examined(batch, [file_not_found(batch.input_file_id)])
            return
        if self._closed.is_set() or not self._examined(batch, list(batch.examination.problems)):
            return
        results = batch.results
        if results is None:
            raise AssertionError("a valid batch has results")
        with self._answering:
            results.write(batch.input_file.path, settings, self.script, self._give_way)
        with self._lock:
            batch.answered_at = self.clock()

    def _give_way(self) -> bool:
        """Lets callers be served first, as a thread that computes slows down theirs; returns whether to give up."""
        until = time.monotonic() + _WAY_SECONDS
        while self.callers and time.monotonic() < until and not self._closed.is_set():
            time.sleep(0.001)
        return self._closed.is_set()

    def _examined(self, batch: Batch, problems: list[Problem]) -> bool:
        """Notes what validation found, and returns whether the requests are to be answered."""
        with self._lock:
            failure = batch.failure()
            scripted = [] if failure is None else [_scripted_problem(failure)]
            if failure is not None and "done" not in failure:
                problems = scripted
            if not problems:
                problems = self._too_many_tokens(batch)
            batch.valid = not problems
            # A batch that is to fail later passes for now.
            batch.problems = problems if problems else scripted
            if batch.valid and batch.examination is not None:
                batch.results = Results(
                    batch.id, batch.endpoint, batch.examination, Path(self._directory.name), batch.dialect
                )
            batch.examined_at = self.clock()
            return batch.valid

    def _refuse_too_many_tokens(self, batch: Batch) -> None:
        """Says at once what would be found later.

        Raises:
            ApiError: 400.
        """
        if batch.input_file is not None and self.settings.enqueued_token_limit is not None:
            batch.examination = examine(batch.input_file.path, batch.endpoint, self.settings)
            for problem in self._too_many_tokens(batch):
                raise ApiError(400, problem.message, code=problem.code)

    def _too_many_tokens(self, batch: Batch) -> list[Problem]:
        """Returns what is wrong if the prompts of a batch do not fit beside those that its model has yet to read."""
        limit = self.settings.enqueued_token_limit
        examination = batch.examination
        if limit is None or examination is None or examination.model is None:
            return []
        others = (
            other.examination.prompt_tokens
            for other in self._batches.values()
            if other is not batch
            and other.examination is not None
            and other.results is not None
            and other.examination.model == examination.model
            and self._advance(other).status not in TERMINAL
        )
        if examination.prompt_tokens + sum(others) <= limit:
            return []
        return [token_limit_exceeded(examination.model, limit)]

    def _advance(self, batch: Batch) -> Stage:
        """Returns where a batch stands; one that has just ended gets its files."""
        if batch.final is not None:
            return batch.final
        now = self.clock()
        stage = batch.stage(self.settings, now)
        if stage.status not in TERMINAL:
            batch.seen_at = now
            if self.settings.growing_output and batch.answered_at is not None:
                self._grow(batch, stage)
            return stage
        batch.final = stage
        results = batch.results
        if results is not None and "in_progress_at" in stage.moments:
            results.close(stage.status, stage.done)
            for kind, path in (("output", results.output_path), ("error", results.error_path)):
                if path.stat().st_size or batch.dialect.both_files or "empty_files" in batch.faults:
                    name = f"{batch.id}_{kind}.jsonl"
                    shown = batch.output_file if kind == "output" else None
                    file_id = shown.id if shown else batch.dialect.new_id("file-")
                    file = self._keep(file_id, path, name, "batch_output", batch.output_seconds, batch.owner)
                    setattr(batch, f"{kind}_file", file)
        return stage

    def _grow(self, batch: Batch, stage: Stage) -> None:
        """Shows what a batch under way has answered so far."""
        if batch.results is None or not stage.done:
            return
        path = batch.results.grow(min(stage.done, batch.results.done))
        file_id = batch.output_file.id if batch.output_file else batch.dialect.new_id("file-")
        name = f"{batch.id}_output.jsonl"
        batch.output_file = self._keep(file_id, path, name, "batch_output", batch.output_seconds, batch.owner)

    def _advance_all(self) -> None:
        for batch in self._batches.values():
            self._advance(batch)

    # Synchronous calls

    def answer(self, endpoint: str, body: dict[str, Any]) -> Answer:
        """Answers a synchronous call."""
        serialised = canonical(body)
        failure = self.script.for_request(serialised, "sync")
        if failure is not None:
            return fail(failure)
        reply = answer(endpoint, body, self.settings.knows, serialised)
        if reply.status == 200:
            with self._lock:
                self.sync_bodies[hashlib.sha256(serialised).hexdigest()] += 1
        return reply

    # Books

    def books(self) -> dict[str, Any]:
        """Returns the books, as JSON: the fields of `Books`."""
        billed: Counter[str] = Counter()
        bodies: Counter[str] = Counter()
        batches = []
        intervals = []
        with self._lock:
            for batch in self._batches.values():
                stage = self._advance(batch)
                custom_ids = batch.examination.custom_ids if batch.results and batch.examination else []
                batches.append(batch.as_json(stage) | {"custom_ids": custom_ids})
                intervals.append(Interval(batch.id, batch.created_at, stage.ended_at))
                if batch.results is not None:
                    for custom_id, digest in batch.results.billed(min(stage.done, batch.results.done)):
                        billed[custom_id] += 1
                        bodies[digest] += 1
            return {
                "batches": batches,
                "billed": dict(billed),
                "billed_bodies": dict(bodies),
                "sync": self.sync_bodies.total(),
                "sync_bodies": dict(self.sync_bodies),
                "intervals": [asdict(interval) for interval in intervals],
                "max_jobs_in_flight": most_at_once(intervals),
                "files": [file.as_json() for file in self._files.values()],
            }


def _since(batches: dict[str, Batch], moment: float) -> Iterator[Batch]:
    """Yields the batches created after a moment, newest first."""
    for batch in reversed(batches.values()):
        if batch.created_at <= moment:
            return
        yield batch


def _scripted_problem(failure: dict[str, Any]) -> Problem:
    """Returns the error that a batch is to fail with by script."""
    problem = {"code": "invalid_request", "message": "The sandbox was told to fail this batch."}
    return Problem(
        **problem | {name: failure[name] for name in ("code", "message", "param", "line") if name in failure}
    )
