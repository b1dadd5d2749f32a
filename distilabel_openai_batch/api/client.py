"""The calls to the server, each with one error boundary, so that the code above needs no `try`.

What passes (a cut connection, a 503, a 429) is waited out here; what does not is raised as a `RunError` that quotes the
API. The SDK's own retries are off: it would repeat a create whose reply was lost, and so buy the batch again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import openai
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from distilabel_openai_batch import errors, failpoints
from distilabel_openai_batch.api.batches import KEY_METADATA, Batch, read_batch
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.transport import (
    _NO_SUCH_PATH,
    Patience,
    _code,
    _duration,
    _error_of,
    _is_collection,
    _is_no_endpoint,
    _message,
    _object,
    _Passing,
    _seconds,
    _shortened,
    _without_credentials,
)
from distilabel_openai_batch.failpoints import Failpoint

T = TypeVar("T")


# OpenAI removes a batch's files after thirty days. https://platform.openai.com/docs/guides/batch
_FILES_KEPT_SECONDS = 30 * 86_400.0

# https://platform.openai.com/docs/guides/batch#rate-limits
_CREATIONS_AN_HOUR = 2_000

# Clocks of client and server may disagree by this much when batches are searched by age.
_CLOCK_SKEW_SECONDS = 3_600.0


FILE_VISIBLE_SECONDS = 60.0
"""An uploaded file that cannot be found may only not be visible yet; after this time it is gone."""

CREATION_SECONDS = 60.0
"""A batch whose creation's reply was lost may still come to be; after this time it is created again."""

RESULTS_VISIBLE_SECONDS = FILE_VISIBLE_SECONDS
"""Likewise a file with results, which is not everywhere at once where the server has made it."""

# What Azure says of an input file before a batch can be made of it. Servers have other words for one that is ready.
_FILE_NOT_READY = frozenset({"pending", "running"})
_FILE_USELESS = frozenset({"error", "deleting", "deleted"})


# As long as the SDK's own `files.wait_for_processing` waits.
_FILE_READY_SECONDS = 1_800.0


class NoSuchEndpointError(Exception):
    """The server has no such synchronous endpoint."""


class BatchAPI:
    """The Batch API of one server, and its synchronous endpoints.

    Args:
        client: the SDK's client; it is used with its retries switched off.
        patience: how long to wait for a server that fails.
        logger: where it says what it is waiting for.
    """

    def __init__(self, client: openai.AsyncOpenAI, patience: Patience, logger: logging.Logger) -> None:
        self._client = client.with_options(max_retries=0)
        # Answers are read as the server sent them: the SDK's objects of a hundred batches cost milliseconds a look.
        self._raw = self._client.with_raw_response
        self._patience = patience
        self._logger = logger
        self._creations: deque[float] = deque(maxlen=_CREATIONS_AN_HOUR)
        self._reached = False
        self._lists = True
        self._warned: set[str] = set()

    async def upload(self, path: Path) -> str:
        """Uploads an input file, read from the disk as it is sent.

        Args:
            path: its name is unlike that of any other file on the server: by it one is found whose reply was lost.

        Returns:
            The file's id, once a batch can be made of it.

        Raises:
            RunError: the server refuses it, cannot use it, or could not be reached.
        """
        attempts = 0

        async def attempt() -> tuple[str, dict[str, Any]]:
            nonlocal attempts
            attempts += 1
            with path.open("rb") as file:
                created = _object(await self._raw.files.create(file=(path.name, file), purpose="batch"))
            file_id = created.get("id")
            if not isinstance(file_id, str) or not file_id:
                raise ValueError("The server's answer is not a file.")
            return file_id, created

        file_id, created = await self._patiently("uploading an input file", attempt)
        if attempts > 1:
            await self.delete_uploads(path.name, but=file_id)
        await self._until_ready(file_id, created)
        return file_id

    async def _until_ready(self, file_id: str, file: Mapping[str, Any]) -> None:
        """Waits while the server says that it is not done with an upload, as Azure does."""
        started, looks = time.monotonic(), 0

        async def look() -> dict[str, Any]:
            return _object(await self._raw.files.retrieve(file_id))

        while (status := str(file.get("status")).lower()) in _FILE_NOT_READY:
            if time.monotonic() - started > _FILE_READY_SECONDS:
                raise errors.RunError(
                    f"Input file {file_id} is still {status} {_FILE_READY_SECONDS:,.0f} s after its upload."
                )
            looks += 1
            await anyio.sleep(self._patience.pause(looks))
            file = await self._patiently(f"looking at file {file_id}", look)
        if status in _FILE_USELESS:
            details = file.get("status_details") or "the server gave no reason"
            raise errors.RunError(f"The server cannot use input file {file_id}, its status is {status}: {details}")

    async def delete_uploads(self, name: str, but: str | None = None) -> None:
        """Removes input files of a name that nobody needs: of uploads whose reply was lost.

        They cost nothing, so a server that refuses is left alone.
        """

        async def page() -> list[dict[str, Any]]:
            files = _object(await self._raw.files.list(purpose="batch", extra_query={"limit": 1_000})).get("data")
            return [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []

        try:
            files = await self._call(page)
        except (errors.RunError, _Passing):
            return
        for file in files:
            file_id = file.get("id")
            if file.get("filename") == name and isinstance(file_id, str) and file_id != but:
                await self.delete(file_id)

    async def delete(self, file_id: str) -> None:
        """Removes a file from the server. It costs nothing there, so a server that refuses is left alone."""
        try:
            await self._call(lambda: self._client.files.delete(file_id))
        except (errors.RunError, _Passing) as error:
            self._logger.warning(f"File {file_id} could not be removed from the server: {error}")

    async def create(
        self, input_file_id: str, endpoint: str, completion_window: str, key: str, metadata: Mapping[str, str]
    ) -> Batch:
        """Creates a batch, once, whatever happens to the reply.

        Where the reply was lost the batch is searched for, for a while, before it is created again.

        Args:
            input_file_id: what `upload` returned.
            endpoint: the path that all its requests go to.
            completion_window: as the API's (`"24h"`).
            key: unlike that of any other batch. It goes into the metadata, by which a batch whose reply was lost is
                found.
            metadata: what else goes there.

        Raises:
            RunError: the server refuses it or could not be reached.
        """
        started = time.time()
        # Creations that may have come through, and when the last of them was given up.
        maybe_created, given_up_at = 0, 0.0

        async def create() -> Batch:
            created = await self._raw.batches.create(
                input_file_id=input_file_id,
                endpoint=endpoint,  # type: ignore[arg-type]
                completion_window=completion_window,  # type: ignore[arg-type]
                metadata={KEY_METADATA: key, **metadata},
            )
            return read_batch(_object(created))

        async def attempt() -> Batch:
            nonlocal maybe_created, given_up_at
            if maybe_created:
                if batch := await self._find(key, input_file_id, since=started):
                    self._logger.warning(f"The reply to a batch's creation was lost. Batch {batch.id} was found again.")
                    return batch
                # A gateway may complete what it has given up waiting for.
                if self._lists and time.monotonic() - given_up_at < CREATION_SECONDS:
                    raise _Passing("The reply to its creation was lost, and it is not in the list yet.", refused=True)
            await self._may_create()
            try:
                created = await self._call(create)
            except _Passing as error:
                if not error.refused:
                    maybe_created, given_up_at = maybe_created + 1, time.monotonic()
                raise
            except errors.RunError as error:
                if is_file_not_visible(str(error)) and time.time() - started < FILE_VISIBLE_SECONDS:
                    raise _Passing(str(error), refused=True) from None
                raise
            maybe_created += 1
            return created

        batch = await self._patiently("creating a batch", attempt)
        if maybe_created > 1:
            batch = await self._only_one(batch, key, input_file_id, since=started)
        if KEY_METADATA not in batch.metadata:
            self._warn(
                "This server drops a batch's metadata: jobs that this machine's ledger does not know cannot be found on"
                " it, and would be bought again."
            )
        if not self._lists:
            self._warn(
                "This server does not list its batches: when the reply to a batch's creation is lost, or this machine's"
                " ledger, the batch cannot be found again and is bought a second time."
            )
        return batch

    def _warn(self, what: str) -> None:
        """Says once what cannot be promised on this server."""
        if what not in self._warned:
            self._warned.add(what)
            self._logger.warning(what)

    async def _may_create(self) -> None:
        """Waits while as many creations were tried within the hour as the server allows."""
        while len(self._creations) == _CREATIONS_AN_HOUR:
            due_in = self._creations[0] + 3_600.0 - time.monotonic()
            if due_in <= 0:
                break
            await anyio.sleep(due_in)
        self._creations.append(time.monotonic())

    async def find(self, key: str, input_file_id: str | None, since: float) -> Batch | None:
        """Looks on the server for a batch that may have been created there.

        Args:
            key: what it was to be created with.
            input_file_id: what it was to be created from; where the server drops metadata it is found by that.
            since: when it may have been created at the earliest, in seconds since the epoch.

        Returns:
            The batch; `None` if there is none, or the server cannot list its batches.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        return await self._patiently("looking for a batch", lambda: self._find(key, input_file_id, since))

    async def _find(self, key: str, input_file_id: str | None, since: float) -> Batch | None:
        cancelled: Batch | None = None
        async for batch in self._created_with(key, input_file_id, since):
            # One that was created twice was cancelled once.
            if not _is_cancelled(batch):
                return batch
            cancelled = cancelled or batch
        return cancelled

    async def _created_with(self, key: str, input_file_id: str | None, since: float) -> AsyncIterator[Batch]:
        async for batch in self._all_since(since):
            # Where metadata is dropped: its file has been in no other batch, but for those that were refused.
            its = input_file_id and not batch.metadata and batch.input_file_id == input_file_id
            if batch.metadata.get(KEY_METADATA) == key or (its and batch.status != "failed"):
                yield batch

    async def _only_one(self, batch: Batch, key: str, input_file_id: str, since: float) -> Batch:
        """Leaves the oldest of the batches with a key, where one came to be after its creation had been repeated.

        Returns:
            The one that is left. Where the server refuses to tell or to cancel, there may be others.
        """

        async def look() -> list[Batch]:
            return [found async for found in self._created_with(key, input_file_id, since)]

        kept = batch
        try:
            found = await self._patiently("looking for a batch", look)
            going = {it.id: it for it in found if it.status != "failed" and not _is_cancelled(it)} | {batch.id: batch}
            kept, *doubles = sorted(going.values(), key=lambda it: (it.created_at or 0.0, it.id != batch.id))
            for double in doubles:
                self._logger.warning(
                    f"A creation whose reply was lost came through after it was repeated. Batch {kept.id} is kept,"
                    f" batch {double.id} asks the same and is cancelled."
                )
                await self.cancel(double.id)
        except errors.RunError as error:
            self._logger.warning(f"Batch {kept.id} may have been created twice: {error}")
        return kept

    async def list_last_month(self) -> list[Batch]:
        """Lists the batches that are young enough to have their files, where the server lists any.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        since = time.time() - _FILES_KEPT_SECONDS

        async def attempt() -> list[Batch]:
            return [batch async for batch in self._all_since(since)]

        return await self._patiently("listing the batches", attempt)

    async def _all_since(self, since: float) -> AsyncIterator[Batch]:
        """The batches, in the server's order; where that is newest first, back to a time."""
        after: str | None = None
        seen: set[str] = set()
        while self._lists:
            page = await self._page(after)
            for batch in page:
                yield batch
            # A server that does not know `after` sends its first page for ever.
            if not page or page[-1].id in seen:
                return
            first, last = page[0].created_at or 0.0, page[-1].created_at or 0.0
            # One that lists the oldest first has the newest on its last page.
            if last <= first and last < since - _CLOCK_SKEW_SECONDS:
                return
            after = page[-1].id
            seen.add(after)

    async def _page(self, after: str | None = None) -> list[Batch]:
        cursor = {"after": after} if after else {}

        async def page() -> list[Batch]:
            batches = _object(await self._raw.batches.list(limit=100, extra_query=cursor)).get("data")
            if not isinstance(batches, list):
                raise ValueError("The server's answer is not a list of batches.")
            return [read_batch(batch) for batch in batches if isinstance(batch, dict)]

        try:
            return await self._call(page)
        except errors.RunError as error:
            if error.status_code not in _NO_SUCH_PATH:
                raise
            # Said when a batch is created: where even files are refused, the address is wrong.
            self._lists = False
            return []

    async def can_list_batches(self) -> bool:
        """Whether the server lists its batches, by one call.

        Raises:
            RunError: the server refuses or could not be reached.
        """
        await self._patiently("listing the batches", self._page)
        return self._lists

    async def list_file(self) -> None:
        """Asks for one input file's entry in the list of files.

        Raises:
            RunError: the server refuses or could not be reached.
        """

        async def attempt() -> None:
            _object(await self._raw.files.list(purpose="batch", extra_query={"limit": 1}))

        await self._patiently("listing the files", attempt)

    async def retrieve(self, batch_id: str) -> Batch:
        """Looks at a batch.

        Raises:
            RunError: the server refuses, does not know the batch, or could not be reached.
        """

        async def attempt() -> Batch:
            return read_batch(_object(await self._raw.batches.retrieve(batch_id)))

        try:
            return await self._patiently(f"looking at batch {batch_id}", attempt)
        except errors.RunError as error:
            if error.status_code != 404:
                raise
            raise errors.RunError(
                f"The server does not know batch {batch_id}: {error}. Was it made with a key of another project? If it"
                " is gone for good: `distilabel-openai-batch forget SCOPE --lost` frees its requests, to be bought"
                " again.",
                status_code=404,
                code=error.code,
                batch_id=batch_id,
            ) from None

    async def retrieve_many(self, batch_ids: set[str]) -> dict[str, Batch]:
        """Looks at several batches with one call where the server can list them, and one by one where it cannot."""
        found: dict[str, Batch] = {}
        if len(batch_ids) > 1 and self._lists:
            page = await self._patiently("looking at the batches", self._page)
            found = {batch.id: batch for batch in page if batch.id in batch_ids}
        for batch_id in batch_ids - found.keys():
            found[batch_id] = await self.retrieve(batch_id)
        return found

    async def cancel(self, batch_id: str) -> None:
        """Asks the server to end a batch; one that has ended already is left as it is.

        Raises:
            RunError: the server refuses the key or could not be reached.
        """

        async def attempt() -> None:
            try:
                await self._client.batches.cancel(batch_id)
            except openai.APIStatusError as error:
                if error.status_code not in (400, 404, 409) or errors.is_out_of_quota(_code(error)):
                    raise

        await self._patiently(f"cancelling batch {batch_id}", attempt)

    async def download(self, file_id: str, path: Path, *, is_new: bool = False) -> None:
        """Streams a file to the disk. One that breaks off is carried on from where it broke, or begun again.

        Args:
            file_id: which one.
            path: where to. Nothing is there if the server does not have the file.
            is_new: whether the server may have made it just now: one that is not found may only not be visible yet.

        Raises:
            RunError: the server refuses it or could not be reached.
        """
        path.unlink(missing_ok=True)
        started = time.monotonic()

        async def attempt() -> None:
            try:
                await self._call(partial(self._fetch, file_id, path))
            except errors.RunError as error:
                if is_new and error.status_code == 404 and time.monotonic() - started < RESULTS_VISIBLE_SECONDS:
                    raise _Passing(str(error), refused=True) from None
                raise

        await self._patiently(f"downloading file {file_id}", attempt)

    async def download_more(self, file_id: str, path: Path) -> None:
        """Streams to the disk what a file has more than is there. What cannot be had now is left for later.

        Args:
            file_id: a file that may be growing.
            path: what was downloaded of it so far.
        """
        with suppress(errors.RunError, _Passing):
            await self._call(partial(self._fetch, file_id, path))

    async def _fetch(self, file_id: str, path: Path) -> None:
        """Carries a download on from where it is, or begins it again where the server cannot."""
        have = path.stat().st_size if path.exists() else 0
        # Without "identity" the bytes that arrive are not the bytes of the file, which a range counts.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        streamed = self._client.files.with_streaming_response.content(file_id, extra_headers=headers)
        try:
            async with streamed as response:
                carried_on = response.status_code == 206
                with path.open("ab" if carried_on else "wb") as file:
                    async for chunk in response.iter_bytes():
                        file.write(chunk)
                        failpoints.reached(Failpoint.DOWNLOADING)
        except openai.APIStatusError as error:
            if error.status_code != 416 or not have:
                raise
            if error.response.headers.get("content-range") != f"bytes */{have}":
                path.unlink()
                raise _Passing(f"The server has no byte {have:,} of the file.") from None
            # It broke off behind its last byte.

    async def request(self, endpoint: str, body: bytes) -> Outcome:
        """Asks one request at its synchronous endpoint, at full price.

        A rate limit and a server that is not reached are waited out for hours, any other failure that may pass for as
        many repetitions as a call is given before the server was ever reached.

        Args:
            endpoint: its path, as a batch would have it.
            body: its body as JSON.

        Returns:
            The answer, or why there is none.

        Raises:
            NoSuchEndpointError: the server answers such requests in batches only.
            RunError: the server refuses the key, or could not be reached.
        """
        path = endpoint.removeprefix("/v1")
        attempts = 0

        async def attempt() -> Outcome:
            nonlocal attempts
            attempts += 1
            try:
                answer = await self._client.post(path, cast_to=object, body=orjson.loads(body))
            except openai.APIStatusError as error:
                status_code, code, message = error.status_code, _code(error), _message(error)
                if _is_no_endpoint(status_code, code, message):
                    raise NoSuchEndpointError(f"The server has no synchronous endpoint {path}.") from None
                may_pass = errors.is_transient(status_code, code) and (
                    status_code == 429 or attempts <= self._patience.retries
                )
                if may_pass or errors.is_key_rejected(status_code) or errors.is_out_of_quota(code):
                    raise
                return Failure(_shortened(self._without_key(message)), status_code, code)
            if not isinstance(answer, dict):
                raise ValueError("The server's answer is not of this API.")
            return Answer.of(answer)

        return await self._patiently(f"asking a request at {path}", attempt)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        started = time.monotonic()
        did_nothing = True

        def is_enough(state: RetryCallState) -> bool:
            if not self._reached:
                return state.attempt_number > self._patience.retries
            return time.monotonic() - started > self._patience.total

        def pause(state: RetryCallState) -> float:
            error = _error_of(state)
            return max(error.retry_after or 0.0, self._patience.pause(state.attempt_number))

        def tell(state: RetryCallState) -> None:
            nonlocal did_nothing
            did_nothing = did_nothing and _error_of(state).refused
            # Each doubling of the attempts is news; a line for each of a night's failures is not.
            if state.attempt_number & (state.attempt_number - 1) == 0:
                until = f", and for {self._patience_left()} at most" if state.attempt_number == 1 else ""
                self._logger.warning(
                    f"Failed {what} at {self._address}: {_error_of(state)} Trying again in"
                    f" {state.upcoming_sleep:.1f} s{until}."
                )

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Passing),
            stop=is_enough,
            wait=pause,
            before_sleep=tell,
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            answer: T = await retrying(self._call, attempt)
        except _Passing as error:
            is_there = "" if self._reached else " Is the address right, and the server up?"
            failed = errors.ConnectionFailedError(
                f"Failed {what} at {self._address}: {error}{is_there} Nothing that was answered is lost: run it again."
            )
            failed.did_nothing = did_nothing and error.refused
            raise failed from None
        except errors.RunError as error:
            error.did_nothing = error.did_nothing and did_nothing
            raise
        return answer

    @property
    def _address(self) -> str:
        return _without_credentials(self._client.base_url)

    def _patience_left(self) -> str:
        """How long a call that has failed for the first time is repeated."""
        patience = self._patience
        if self._reached:
            return _duration(patience.total)
        return _duration(sum(patience.pause(attempt) for attempt in range(1, patience.retries + 1)))

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """The one boundary between the SDK's exceptions and ours."""
        try:
            result = await call()
        except openai.APIStatusError as error:
            self._reached = True
            raise self._refusal(error) from None
        except (openai.APIConnectionError, httpx.TransportError) as error:
            cause = error.__cause__ or error
            reason = str(cause) or str(error) or type(error).__name__
            never_sent = isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout)
            raise _Passing(f"{self._without_key(reason).rstrip('.')}.", refused=never_sent) from None
        except (openai.OpenAIError, ValueError) as error:
            # An answer that is no JSON, or not of this API: a proxy's error page with status 200.
            raise _Passing(self._without_key(str(error))) from None
        self._reached = True
        return result

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        message = _shortened(self._without_key(_message(error)))
        code = _code(error)
        status_code = error.status_code
        about = f"{message} (HTTP {status_code}{f', {code}' if code else ''})"
        if status_code in _NO_SUCH_PATH and _is_collection(error.request.method, error.request.url.path):
            about = f"{error.request.method} {_without_credentials(error.request.url)} was answered: {about}"
            if not (isinstance(self._client, openai.AsyncAzureOpenAI) or self._address.endswith("/v1")):
                about += ". Is the base URL right? That of a server that speaks OpenAI's API usually ends in /v1."
        kind = errors.RunError
        if errors.is_out_of_quota(code):
            kind = errors.QuotaError
        elif errors.is_key_rejected(status_code):
            kind = errors.AuthenticationError
        elif errors.is_transient(status_code, code) and not errors.is_over_token_limit(code):
            retry_after = _seconds(error.response.headers.get("retry-after"))
            return _Passing(about, retry_after=retry_after, refused=status_code == 429)
        refusal = kind(about, status_code=status_code, code=code)
        refusal.did_nothing = True
        return refusal

    def _without_key(self, text: str) -> str:
        return text.replace(self._client.api_key, "***") if self._client.api_key else text


def _is_cancelled(batch: Batch) -> bool:
    return batch.status in ("cancelling", "cancelled", "canceled")


def is_file_not_visible(message: str) -> bool:
    """Whether a refusal says that the input file is not there, as the server does for moments after an upload."""
    return "cannot find file" in message.lower()
