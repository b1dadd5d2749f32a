"""Files on the server: upload of input files, download of results, deletion."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import openai

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.redirects import RedirectRefusedError, open_storage
from distilabel_openai_batch.api.replies import UnexpectedReplyError, is_id, json_list, json_object
from distilabel_openai_batch.api.retention import DEFAULT_RETENTION, Retention
from distilabel_openai_batch.api.size_limits import FILE_CONTENT, SizeLimit
from distilabel_openai_batch.api.transport import TransientError, Transport
from distilabel_openai_batch.failpoints import Failpoint

FILE_VISIBLE_SECONDS = 60.0
"""Seconds after an upload during which a file that the server cannot find may only not be visible yet."""

RESULTS_VISIBLE_SECONDS = 60.0
"""Seconds after a batch's end during which the server may not find its result files everywhere yet."""

# Statuses of an uploaded file on Azure before a batch can be created from it. Servers differ in their word for "ready".
_FILE_NOT_READY = frozenset({"pending", "running"})
_FILE_UNUSABLE = frozenset({"error", "deleting", "deleted"})

# Status codes with which a server answers for a file that it does not have.
_FILE_MISSING = frozenset({400, 404, 410})

FILE_GONE = frozenset({404, 410})
"""Status codes of a download whose file the server no longer has.

Doubleword answers 410 for a deleted result file (control-layer pull request 1741).
"""

# Maximum of seconds until an upload is ready: the default of the SDK's `files.wait_for_processing`.
_FILE_READY_SECONDS = 1_800.0


# Maximum of successive downloads of one file that begin at its first byte and are cut.
_WHOLE_TRIES = 5

# Parameters by which servers name the input file of a batch.
_INPUT_FILE_PARAMS = frozenset({"file_id", "input_file_id"})
# Words of servers that name neither the file nor the parameter.
_FILE_UNKNOWN = re.compile(r"(cannot find|no such) (input )?file|file .*(not found|does not exist)", re.IGNORECASE)


class InputFileGoneError(errors.RunError):
    """Refusal of a batch because the server no longer has the input file; another upload helps."""


class _CutTries:
    """Count of the tries of one download that began at the first byte and were cut.

    A server that ignores `Range` begins each try at the first byte, so a file that it always cuts never ends.
    """

    def __init__(self, file_id: str) -> None:
        self._file_id = file_id
        self._count = 0
        self._largest = 0
        self._is_whole: bool | None = None

    def begin(self) -> None:
        """Begin a try, of which no reply is known yet."""
        self._is_whole = None

    def note_reply(self, *, is_partial: bool) -> None:
        """Note whether the reply continues the bytes of earlier tries."""
        self._is_whole = not is_partial

    def note_cut(self, size: int) -> None:
        """Count a cut reply.

        Args:
            size: bytes on the disk.

        Raises:
            RunError: the last allowed try was cut.
        """
        if self._is_whole is None:
            return
        if not self._is_whole:
            self._count = 0
        elif size:
            self._count += 1
            self._largest = max(self._largest, size)
        if self._count >= _WHOLE_TRIES:
            raise errors.RunError(
                f"Failed to download file {self._file_id}: the server cut each of {_WHOLE_TRIES} tries, the longest"
                f" after {self._largest:,} bytes, and cannot continue a download (header `Range`). Lower"
                " `max_requests_per_job`, so that later jobs have smaller files. All answers are kept; run again to try"
                " again."
            )


class OversizedFileError(errors.RunError):
    """File on the server that exceeds its limit."""


class _DownloadGauge:
    """Measure of a download's bytes and of its last line, against a limit.

    Args:
        file_id: the file's id.
        limit: the limits.
    """

    def __init__(self, file_id: str, limit: SizeLimit) -> None:
        self._file_id = file_id
        self._limit = limit
        self._size = 0
        self._line_size = 0

    def begin(self, size: int) -> None:
        """Begin behind a number of bytes that were measured before; 0 begins anew."""
        self._size = size
        if not size:
            self._line_size = 0

    def add(self, chunk: bytes) -> None:
        """Measure the next bytes.

        Raises:
            OversizedFileError: the file or a line exceeds its limit.
        """
        self._size += len(chunk)
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        # Lines within the chunk are shorter than the chunk → measure the line that ends, and the one that begins.
        self._line_size += len(chunk) if first < 0 else first
        is_line_too_long = self._line_size > self._limit.line_bytes
        if is_line_too_long or self._size > self._limit.file_bytes:
            part = "a line of the file" if is_line_too_long else "the file"
            limit = self._limit.line_bytes if is_line_too_long else self._limit.file_bytes
            raise OversizedFileError(
                f"The download of file {self._file_id} was stopped: {part} exceeds {limit:,} bytes, more than the"
                " server's answers to the requests can have. All answers are kept, and the job stays open: run again to"
                " try again."
            )
        if last >= 0:
            self._line_size = len(chunk) - last - 1


class FilesAPI:
    """The files of one server.

    Args:
        transport: makes the calls.
        retention: the expiry of uploads.
        extra_fields: further parameters of uploads, by name.
    """

    def __init__(
        self,
        transport: Transport,
        retention: Retention = DEFAULT_RETENTION,
        extra_fields: Mapping[str, Any] | None = None,
    ) -> None:
        self._transport = transport
        # Older releases of the SDK lack the parameter of the expiry → send it as `extra_body`.
        self._extra_body = {**(extra_fields or {}), **retention.upload_parameters()}
        # Status codes of the refusals that were logged; `None` for a failure without a status code.
        self._refused_deletions: set[int | None] = set()

    async def upload(self, path: Path, name: str) -> str:
        """Upload an input file, streamed from the disk, and wait until a batch can be created from it.

        Args:
            path: the file on the disk.
            name: the file's name on the server, which no other file there has: an upload whose reply was lost is found
                by its name.

        Returns:
            The file's id.

        Raises:
            StorageFullError: the server's file storage is full.
            RunError: the server refuses the file, cannot use it, or could not be reached.
        """
        attempts = 0

        async def attempt() -> tuple[str, dict[str, Any]]:
            nonlocal attempts
            attempts += 1
            with path.open("rb") as file:
                response = await self._transport.adapter.upload(self._transport.client, file, name, self._extra_body)
            created = json_object(response)
            file_id = created.get("id")
            if not is_id(file_id):
                raise UnexpectedReplyError("a file", created)
            return file_id, created

        try:
            file_id, created = await self._transport.retry("upload an input file", attempt)
        except errors.StorageFullError:
            # An earlier attempt may have succeeded, and its file may fill the storage.
            if attempts > 1:
                await self.delete_by_name(name)
            raise
        if attempts > 1:
            await self.delete_by_name(name, keep=file_id)
        await self._wait_until_ready(file_id, created)
        return file_id

    async def _wait_until_ready(self, file_id: str, file: Mapping[str, Any]) -> None:
        """Wait until the server has processed an upload: Azure accepts no batch before."""
        started, polls = time.monotonic(), 0

        async def poll() -> dict[str, Any]:
            return json_object(await self._transport.raw_client.files.retrieve(file_id))

        while (status := str(file.get("status")).lower()) in _FILE_NOT_READY:
            if time.monotonic() - started > _FILE_READY_SECONDS:
                raise errors.RunError(
                    f"Input file {file_id} is still {status} {_FILE_READY_SECONDS:,.0f} s after its upload."
                )
            polls += 1
            await anyio.sleep(self._transport.patience.pause(polls))
            file = await self._transport.retry(f"poll file {file_id}", poll)
        if status in _FILE_UNUSABLE:
            details = file.get("status_details") or "the server gave no reason"
            raise errors.RunError(f"The server cannot use input file {file_id}, its status is {status}: {details}")

    async def exists(self, file_id: str) -> bool:
        """Return whether the server has a usable file; a server that refuses to say is taken to have the file.

        Raises:
            ConnectionFailedError: the server could not be reached.
        """

        async def attempt() -> dict[str, Any]:
            return json_object(await self._transport.raw_client.files.retrieve(file_id))

        try:
            file = await self._transport.retry(f"look for file {file_id}", attempt)
        except errors.ConnectionFailedError:
            raise
        except errors.RunError as error:
            return error.status_code not in _FILE_MISSING
        return str(file.get("status")).lower() not in _FILE_UNUSABLE

    async def delete_by_name(self, name: str, keep: str | None = None) -> None:
        """Delete input files with a name: leftovers of uploads whose reply was lost.

        A server that refuses is ignored, because the files cost nothing.

        Args:
            name: the file name.
            keep: the id of the file that stays.
        """

        async def page() -> list[dict[str, Any]]:
            purpose = self._transport.adapter.purpose
            response = await self._transport.raw_client.files.list(purpose=purpose, extra_query={"limit": 1_000})
            return [file for file in json_list(response) or [] if isinstance(file, dict)]

        try:
            files = await self._transport.call(page)
        except (errors.RunError, TransientError):
            return
        for file in files:
            file_id = file.get("id")
            if file.get("filename") == name and is_id(file_id) and file_id != keep:
                await self.delete(file_id)

    async def delete(self, file_id: str) -> None:
        """Delete a file; log the first refusal of each kind, because a file costs nothing, and a run has many."""
        try:
            await self._transport.call(lambda: self._transport.client.files.delete(file_id))
        except (errors.RunError, TransientError) as error:
            kind = error.status_code if isinstance(error, errors.RunError) else None
            if kind not in self._refused_deletions:
                self._refused_deletions.add(kind)
                self._transport.logger.warning(
                    f"Could not delete file {file_id} from the server: {error} Further refusals of this kind are not"
                    " logged."
                )

    async def check_list(self) -> None:
        """Request one entry of the list of input files, and drop the reply.

        Raises:
            RunError: the server refuses or could not be reached.
        """

        async def attempt() -> None:
            purpose = self._transport.adapter.purpose
            response = await self._transport.raw_client.files.list(purpose=purpose, extra_query={"limit": 1})
            if json_list(response) is None:
                raise UnexpectedReplyError("a list of files", response.content)

        await self._transport.retry("list the files", attempt)

    async def download(self, file_id: str, path: Path, limit: SizeLimit, *, is_new: bool = False) -> None:
        """Stream a file to the disk; resume a download that breaks off, or restart it.

        Args:
            file_id: the file's id.
            path: the target. No file is there afterwards if the server does not have the file.
            limit: the size above which the download is stopped.
            is_new: whether the server may have created the file just now → retry a missing file for
                `RESULTS_VISIBLE_SECONDS`.

        Raises:
            RunError: the server refuses the download, always cuts it, or could not be reached; or the file exceeds its
                limit.
        """
        path.unlink(missing_ok=True)
        started = time.monotonic()
        tries, gauge = _CutTries(file_id), _DownloadGauge(file_id, limit)

        async def attempt() -> None:
            tries.begin()
            try:
                await self._transport.call(partial(self._stream, file_id, path, tries, gauge))
            except TransientError:
                tries.note_cut(path.stat().st_size if path.exists() else 0)
                raise
            except errors.RunError as error:
                is_early = is_new and time.monotonic() - started < RESULTS_VISIBLE_SECONDS
                if is_early and error.status_code in FILE_GONE:
                    raise TransientError(str(error), did_nothing=True) from None
                raise

        await self._transport.retry(f"download file {file_id}", attempt)

    async def download_more(self, file_id: str, path: Path, limit: SizeLimit) -> None:
        """Append the bytes that a growing file has beyond those at `path`; ignore a failure.

        Args:
            file_id: a file that the server may still extend.
            path: the bytes downloaded so far.
            limit: the size above which the download is stopped.
        """
        gauge = _DownloadGauge(file_id, limit)
        with suppress(errors.RunError, TransientError):
            await self._transport.call(partial(self._stream, file_id, path, _CutTries(file_id), gauge))

    async def _stream(self, file_id: str, path: Path, tries: _CutTries, gauge: _DownloadGauge) -> None:
        """Resume a download at the end of `path`, or restart it if the server ignores ranges."""
        size = path.stat().st_size if path.exists() else 0
        # A compressed response would not contain the bytes that a range counts → request "identity".
        headers = {"Accept": FILE_CONTENT, "Accept-Encoding": "identity"}
        if size:
            headers["Range"] = f"bytes={size}-"
        try:
            await self._save_content(file_id, headers, path, tries, gauge)
        except (openai.APIStatusError, httpx.HTTPStatusError) as error:
            if error.response.status_code != 416 or not size:
                if isinstance(error, httpx.HTTPStatusError):
                    raise _storage_failure(error.response) from None
                raise
            # 416 with a matching total means that the file was already complete.
            if error.response.headers.get("content-range") != f"bytes */{size}":
                path.unlink()
                raise TransientError(f"The server has no byte {size:,} of the file.") from None

    async def _save_content(
        self, file_id: str, headers: Mapping[str, str], path: Path, tries: _CutTries, gauge: _DownloadGauge
    ) -> None:
        """Write a file's content to `path`, from the server or from the storage that the server redirects to.

        Raises:
            httpx.HTTPStatusError: the storage refuses.
        """
        client = self._transport.client
        try:
            async with client.files.with_streaming_response.content(file_id, extra_headers=headers) as response:
                await self._save(response.status_code, response.iter_bytes(), path, tries, gauge)
            return
        except openai.APIConnectionError as error:
            redirect = error.__cause__
            if not isinstance(redirect, RedirectRefusedError) or redirect.storage is None:
                raise
        # The SDK's `Timeout` may be that of httpx2 → pass its seconds.
        seconds: Any = getattr(client.timeout, "read", client.timeout)
        async with open_storage(redirect.storage, headers, seconds) as stored:
            stored.raise_for_status()
            await self._save(stored.status_code, stored.aiter_bytes(), path, tries, gauge)

    async def _save(
        self, status_code: int, chunks: AsyncIterator[bytes], path: Path, tries: _CutTries, gauge: _DownloadGauge
    ) -> None:
        self._transport.note_reached()
        is_partial = status_code == 206
        tries.note_reply(is_partial=is_partial)
        gauge.begin(path.stat().st_size if is_partial and path.exists() else 0)
        with path.open("ab" if is_partial else "wb") as file:
            async for chunk in chunks:
                gauge.add(chunk)
                file.write(chunk)
                failpoints.reached(Failpoint.DOWNLOADING)


def _storage_failure(response: httpx.Response) -> Exception:
    """Return the error for a refusal by the storage to which the server redirected."""
    text = f"The storage {response.request.url.host} of the file's content refuses (HTTP {response.status_code})."
    if errors.is_transient(response.status_code, None):
        return TransientError(text, status_code=response.status_code)
    return errors.RunError(text, status_code=response.status_code)


def is_input_file_refused(refusal: errors.RunError | Batch, file_id: str) -> bool:
    """Return whether a refusal concerns the input file itself, because the server has no such file.

    Servers say so for minutes after an upload, at the creation or as the reason of a failed batch: "Cannot find file",
    "No such File object". Their words differ → look for the file or the parameter that they name.

    Args:
        refusal: the refusal of a creation, or a batch with the status `failed`.
        file_id: the id of the batch's input file.
    """
    if isinstance(refusal, Batch):
        reasons = [(error.code, error.param, error.message) for error in refusal.errors if error.line is None]
    elif refusal.status_code in _FILE_MISSING:
        reasons = [(refusal.code, refusal.param, str(refusal))]
    else:
        reasons = []
    return any(
        (param in _INPUT_FILE_PARAMS or file_id in message or _FILE_UNKNOWN.search(message))
        and not errors.is_over_token_limit(code)
        for code, param, message in reasons
    )
