"""Organization: the account whose files, batches and records a sandbox serves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from .batch_store import BatchStore
from .batch_worker import BatchWorker
from .batches import CREATION_FIELDS, StoredBatch, check_creation
from .errors import ApiError
from .file_store import FileStore
from .files import BATCH_FILE_SECONDS, StoredFile, check_expiry
from .model.answers import ModelAnswer, answer_request
from .model.hashing import body_digest, canonical_json
from .model.scripts import SCRIPTS
from .records import Call, Interval, max_overlap
from .results import failure_answer
from .settings import Settings
from .state import SandboxState
from .sync_traffic import SyncTraffic
from .timeline import TERMINAL_STATUSES, Stage
from .validation import validate_file

# Maximum number of recorded calls; older ones are dropped.
_MAX_CALLS = 200_000
_HOUR_SECONDS = 3_600


class Organization:
    """Files, batches and records of one account. The event loop calls the methods; threads work on the batches.

    Args:
        settings: settings at the start.
        clock: function that returns the time, in seconds since the epoch.

    Attributes:
        state: settings, clock and faults.
        worker: threads that work on the batches.
        calls: recorded calls, oldest first.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="openai-batch-sandbox-", ignore_cleanup_errors=True)
        self.state = SandboxState(settings, clock, Path(self._directory.name))
        self.calls: deque[Call] = deque(maxlen=_MAX_CALLS)
        self._files = FileStore(self.state)
        self._batches = BatchStore(self.state, self._files)
        self.worker = BatchWorker(self.state, self._batches)
        self._sync_bodies: Counter[str] = Counter()
        self._sync_tiers: Counter[str] = Counter()
        self._traffic = SyncTraffic(self.state)
        # An owner is a hash of the key with this salt, which is never stored, so no record reveals a key.
        self._salt = secrets.token_bytes(16)

    def close(self) -> None:
        """Stop all work and remove every file."""
        self.worker.close()
        self._directory.cleanup()

    def configure(self, settings: Settings) -> None:
        """Replace the settings of a running sandbox."""
        with self.state.lock:
            # If a batch is unfinished under the old settings, it must not end in the past under the new ones.
            self._batches.advance_all()
            if settings.failures != self.state.settings.failures:
                self.state.schedule.replace_failures(settings.failures)
            self.state.settings = settings

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Check the headers that the gateway in front requires.

        Args:
            headers: headers of a call; names in either case.

        Raises:
            ApiError: 401, if a header is missing or has another value.
        """
        for name, value in self.state.settings.required_headers.items():
            if headers.get(name) != value:
                raise ApiError(401, f"The gateway requires the header {name}.", code="missing_header")

    def authenticate(self, authorization: str | None) -> str:
        """Return the owner that a caller acts for; the same owner for every key unless `separate_keys` is set.

        Args:
            authorization: header `Authorization`: `Bearer`, or `Basic` with the key as the password, which clients send
                for an address with a user, as gateways accept.

        Raises:
            ApiError: 401, if the key is missing or not accepted.
        """
        key = _key_of("" if authorization is None else authorization)
        accepted = self.state.settings.api_keys
        if not key:
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
        if not self.state.settings.separate_keys:
            return ""
        return hashlib.blake2b(key.encode(), key=self._salt, digest_size=8).hexdigest()

    # Files

    def add_file(
        self,
        content: BinaryIO,
        filename: str,
        purpose: str | None,
        expires_after: Any,
        owner: str,
        extra_fields: dict[str, str] | None = None,
    ) -> StoredFile:
        """Store an upload, as `FileStore.add_upload` describes."""
        return self._files.add_upload(content, filename, purpose, expires_after, owner, extra_fields)

    def get_file(self, file_id: str, owner: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: 404, if the owner has no such file.
        """
        with self.state.lock:
            # Result files are registered when a batch is advanced.
            self._batches.advance_all()
            return self._files.get(file_id, owner)

    def list_files(self, owner: str, purpose: str | None = None) -> list[StoredFile]:
        """Return the files of an owner and, if given, of one purpose; newest first."""
        with self.state.lock:
            self._batches.advance_all()
            return self._files.list_newest_first(owner, purpose)

    def delete_file(self, file_id: str, owner: str) -> None:
        """Delete a file.

        Raises:
            ApiError: 404, if the owner has no such file.
        """
        self._files.delete(self.get_file(file_id, owner))

    # Batches

    def create_batch(self, body: dict[str, Any], owner: str) -> dict[str, Any]:
        """Create a batch and return the batch object; validation follows in a thread.

        Args:
            body: body of the call.
            owner: owner of the batch.

        Raises:
            ApiError: if the API would refuse the call.
        """
        state = self.state
        dialect = state.settings.dialect
        body = body | {"endpoint": dialect.openai_endpoint(body.get("endpoint"))}
        check_creation(body, dialect.completion_windows)
        output_seconds = check_expiry(
            body.get("output_expires_after"), "output_expires_after", dialect.min_expiry_seconds
        )
        with state.lock:
            now = state.clock()
            self._check_creation_rate(now)
            batch = StoredBatch(
                id=dialect.new_id("batch_"),
                input_file=self._find_input_file(body["input_file_id"], owner, now),
                input_file_id=body["input_file_id"],
                endpoint=body["endpoint"],
                metadata=body.get("metadata"),
                created_at=now,
                expires_at=now + state.settings.window_seconds,
                output_seconds=BATCH_FILE_SECONDS if output_seconds is None else output_seconds,
                owner=owner,
                faults=state.schedule.take_batch_faults(),
                dialect=dialect,
                completion_window=body["completion_window"],
                extra_fields={name: value for name, value in body.items() if name not in CREATION_FIELDS},
            )
            if dialect.token_limit_at_once:
                self._check_token_limit(batch)
            self._batches.add(batch)
            # The API replies before any work on the batch, so show the first stage.
            shown = batch.show(Stage("validating", 0, {}))
            self.worker.submit(batch)
        return shown

    def _check_creation_rate(self, now: float) -> None:
        """Raise 429 if the hourly limit of created batches is reached."""
        limit = self.state.settings.max_batches_per_hour
        if self._batches.count_created_after(now - _HOUR_SECONDS) >= limit:
            message = f"Rate limit reached for batch creation: {limit} batches an hour."
            raise ApiError(429, message, type="requests", code="rate_limit_exceeded", headers={"Retry-After": "60"})

    def _find_input_file(self, file_id: str, owner: str, now: float) -> StoredFile | None:
        """Return the input file of a new batch; `None` if the file does not exist or is not visible yet.

        Raises:
            ApiError: 400, if the file has another purpose or is pending, or the dialect refuses a missing file.
        """
        file = self._files.find(file_id, owner)
        is_visible = file is not None and now >= file.created_at + self.state.settings.upload_visible_after_seconds
        if not is_visible and self.state.settings.dialect.refuses_missing_file:
            raise ApiError(400, f"No such File object: {file_id}", param="id")
        if file is None:
            return None
        if file.purpose != "batch":
            message = f"Invalid value for 'input_file_id': the purpose of file '{file.id}' must be 'batch'."
            raise ApiError(400, message, param="input_file_id", code="invalid_value")
        if not is_visible:
            return None
        if now < file.created_at + self.state.settings.dialect.pending_seconds:
            raise ApiError(400, f"File '{file.id}' is pending.", param="input_file_id", code="invalid_request")
        return file

    def _check_token_limit(self, batch: StoredBatch) -> None:
        """Raise 400 if a new batch exceeds the enqueued-token limit."""
        if batch.input_file is not None and self.state.settings.enqueued_token_limit is not None:
            batch.validation = validate_file(batch.input_file.path, batch.endpoint, self.state.settings)
            for problem in self._batches.check_token_limit(batch):
                raise ApiError(400, problem.message, code=problem.code)

    def get_batch(self, batch_id: str, owner: str) -> dict[str, Any]:
        """Return a batch object.

        Raises:
            ApiError: 404, if the owner has no such batch.
        """
        with self.state.lock:
            batch = self._batches.get(batch_id, owner)
            return batch.show(self._batches.advance(batch))

    def list_batches(self, owner: str, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return a page of batch objects, newest first, and `True` if more follow.

        Args:
            owner: owner of the batches.
            after: id of the last batch of the previous page; `None` for the first page.
            limit: maximum number of batches.

        Raises:
            ApiError: 404, if the owner has no batch `after`.
        """
        with self.state.lock:
            batches = self._batches.list_newest_first(owner)
            if after is not None:
                batches = batches[batches.index(self._batches.get(after, owner)) + 1 :]
            return [batch.show(self._batches.advance(batch)) for batch in batches[:limit]], len(batches) > limit

    def cancel_batch(self, batch_id: str, owner: str) -> dict[str, Any]:
        """Cancel a batch and return the batch object; a cancelling or cancelled batch stays unchanged.

        Raises:
            ApiError: 404, if the owner has no such batch; 409, if the batch ended with another status.
        """
        with self.state.lock:
            batch = self._batches.get(batch_id, owner)
            stage = self._batches.advance(batch)
            if stage.status in TERMINAL_STATUSES and stage.status != "cancelled":
                raise ApiError(409, f"Cannot cancel a batch with status '{stage.status}'.")
            if batch.cancel_at is None and stage.status != "cancelled":
                batch.cancel_at = self.state.clock()
                stage = batch.stage_at(self.state.settings, batch.cancel_at)
            return batch.show(stage)

    # Synchronous calls

    async def answer(self, endpoint: str, body: dict[str, Any]) -> ModelAnswer:
        """Answer a synchronous call, and record a call answered with 200.

        Args:
            endpoint: path of the endpoint.
            body: body of the call.

        Raises:
            ApiError: if the service tier or a rate limit refuses the call.
        """
        with self._traffic.admit(endpoint, body) as tier:
            if self.state.settings.sync_seconds:
                await asyncio.sleep(self.state.settings.sync_seconds)
            answer = self._answer(endpoint, body)
        if answer.status != 200:
            return answer
        self._sync_tiers[tier] += 1
        tiers = {"service_tier": tier} if "service_tier" in answer.body else {}
        return answer._replace(body=answer.body | tiers, headers=(answer.headers or {}) | self._traffic.headers())

    def _answer(self, endpoint: str, body: dict[str, Any]) -> ModelAnswer:
        """Answer a synchronous call, whatever its tier."""
        serialised = canonical_json(body)
        failure = self.state.schedule.take_failure(serialised, "sync")
        if failure is not None:
            return failure_answer(failure)
        settings = self.state.settings
        digest = body_digest(serialised)
        answer = answer_request(endpoint, body, settings, digest)
        if answer.status == 200:
            if settings.prompt_cache:
                answer = self.state.prompt_cache.bill(body, settings.resolve_model(body["model"]), answer)
            with self.state.lock:
                self._sync_bodies[digest] += 1
            if script := self.state.schedule.take_script(serialised):
                return answer._replace(body=SCRIPTS[script.kind](answer.body))
        return answer

    # Records

    def books(self) -> dict[str, Any]:
        """Return the fields of `Books`, as JSON."""
        billed: Counter[str] = Counter()
        bodies: Counter[str] = Counter()
        batches = []
        intervals = []
        with self.state.lock:
            for batch in self._batches.all_batches():
                stage = self._batches.advance(batch)
                custom_ids = batch.validation.custom_ids if batch.results and batch.validation else []
                batches.append(batch.as_json(stage) | {"custom_ids": custom_ids, "extra_fields": batch.extra_fields})
                intervals.append(Interval(batch.id, batch.created_at, stage.ended_at))
                if batch.results is not None:
                    answered_count = min(stage.answered_count, batch.results.answered_count)
                    for custom_id, digest in batch.results.billed_requests(answered_count):
                        billed[custom_id] += 1
                        bodies[digest] += 1
            return {
                "batches": batches,
                "billed": dict(billed),
                "billed_bodies": dict(bodies),
                "sync": self._sync_bodies.total(),
                "sync_bodies": dict(self._sync_bodies),
                "sync_tiers": dict(self._sync_tiers),
                "most_sync_in_flight": self._traffic.most_in_flight,
                "intervals": [asdict(interval) for interval in intervals],
                "max_jobs_in_flight": max_overlap(intervals),
                "files": [file.as_json() | {"extra_fields": file.extra_fields} for file in self._files.all_files()],
            }


def _key_of(authorization: str) -> str:
    """Return the key in a header `Authorization`; "" if there is none."""
    scheme, _, content = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(content, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return content.strip() if scheme.lower() == "bearer" else ""
