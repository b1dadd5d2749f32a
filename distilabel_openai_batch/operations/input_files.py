"""Requests as they were submitted, from the input files on the server.

The ledger holds answers, and only the start of a failed row's prompt. The prompts of a job are downloaded on request,
and kept in a private file of the process until the process ends.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread
import orjson

from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.size_limits import INPUT_LIMIT
from distilabel_openai_batch.errors import OpenAIBatchError, RunError
from distilabel_openai_batch.operations.server_access import NO_HEADERS, SHORT_PATIENCE, ServerAccess

_CHUNK = 1_000


class InputFiles:
    """The input files that have been downloaded.

    Args:
        directory: a private directory for the requests.
        logger: receives the retries of calls.
        headers: headers of every call to a server.
    """

    def __init__(self, directory: Path, logger: logging.Logger, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._directory = directory
        self._logger = logger
        self._headers = headers
        self._loaded: set[str] = set()
        self._lock = threading.Lock()
        self._loading = anyio.Lock()
        self._database = sqlite3.connect(directory / "requests.sqlite3", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE lines (custom_id TEXT PRIMARY KEY, line BLOB NOT NULL) WITHOUT ROWID")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def lines(self, custom_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the known lines of requests by `custom_id`."""
        sql = "SELECT custom_id, line FROM lines WHERE custom_id IN (SELECT value FROM json_each(?))"
        with self._lock:
            return dict(self._database.execute(sql, (orjson.dumps(list(custom_ids)).decode(),)))

    def find(self, custom_ids: Sequence[str], text: str) -> set[str]:
        """Return the requests, among some, whose known lines contain a text, whatever the case of its letters."""
        if not self._loaded:
            return set()
        lowered = text.lower()
        return {
            custom_id
            for custom_id, line in self.lines(custom_ids).items()
            if lowered in line.decode(errors="replace").lower()
        }

    async def load(self, base_url: str, file_id: str | None) -> None:
        """Download an input file, unless it is known already.

        Args:
            base_url: the address of the file's server.
            file_id: the server's id of the file; `None` for a job without an input file.

        Raises:
            OpenAIBatchError: there is no input file, or the server does not have the file any more.
        """
        if not file_id:
            raise OpenAIBatchError("These requests have no input file: they were synchronous, or never submitted.")
        async with self._loading:
            if file_id in self._loaded:
                return
            path = self._directory / "download"
            access = ServerAccess.from_environment(base_url, self._headers)
            try:
                async with access.open(SHORT_PATIENCE, self._logger) as api:
                    await api.files.download(file_id, path, INPUT_LIMIT)
            except RunError as error:
                raise OpenAIBatchError(f"The input file {file_id} cannot be downloaded: {error}") from None
            await anyio.to_thread.run_sync(self._insert, path)
            path.unlink()
            self._loaded.add(file_id)

    def _insert(self, path: Path) -> None:
        sql = "INSERT OR REPLACE INTO lines (custom_id, line) VALUES (?, ?)"
        with path.open("rb") as file:
            lines = _named_lines(file)
            while chunk := list(islice(lines, _CHUNK)):
                with self._lock:
                    self._database.execute("BEGIN")
                    self._database.executemany(sql, chunk)
                    self._database.execute("COMMIT")


def _named_lines(file: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    for line in file:
        if line.strip():
            yield str(decode_json(line)["custom_id"]), line.rstrip(b"\n")
