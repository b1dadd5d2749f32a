"""Store of files: uploads and result files, by id."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ApiError
from .files import BATCH_FILE_SECONDS, StoredFile, check_expiry, check_storage, check_upload, no_such_file
from .state import SandboxState

_COPY_BYTES = 1 << 20


class FileStore:
    """Files of all owners, in the order in which they were stored."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._files: dict[str, StoredFile] = {}

    def add_upload(
        self,
        content: BinaryIO,
        filename: str,
        purpose: str | None,
        expires_after: Any,
        owner: str,
        extra_fields: dict[str, str] | None = None,
    ) -> StoredFile:
        """Store an upload.

        Args:
            content: content of the file; copied in pieces of 1 MiB.
            filename: name of the file.
            purpose: purpose of the file; `None` if the upload gave none.
            expires_after: `expires_after` object of the API, or `None`.
            owner: owner that `Organization.authenticate` returned.
            extra_fields: fields that OpenAI's API does not have.

        Raises:
            ApiError: if the API would refuse the upload.
        """
        size = content.seek(0, 2)
        content.seek(0)
        check_upload(filename, purpose, size)
        dialect = self._state.settings.dialect
        seconds = check_expiry(expires_after, "expires_after", dialect.min_expiry_seconds)
        if seconds is None and dialect.max_kept_files is not None:
            check_storage([file.size for file in self._files.values()], size, None, dialect.max_kept_files)
        elif seconds is None and purpose == "batch":
            seconds = BATCH_FILE_SECONDS
        file_id = self.new_id()
        path = self._state.directory / file_id
        with path.open("wb") as target:
            shutil.copyfileobj(content, target, _COPY_BYTES)
        # Two uploads at once must not share the last room, so check and store under the lock.
        with self._state.lock:
            try:
                self._check_storage(size, owner)
            except ApiError:
                path.unlink()
                raise
            return self.register(file_id, path, filename, str(purpose), seconds, owner, extra_fields)

    def _check_storage(self, size: int, owner: str) -> None:
        settings = self._state.settings
        if settings.max_storage_bytes is not None or settings.max_files is not None:
            sizes = [file.size for file in self.list_newest_first(owner)]
            check_storage(sizes, size, settings.max_storage_bytes, settings.max_files)

    def new_id(self) -> str:
        """Return an id for a new file."""
        return self._state.settings.dialect.new_id("file-")

    def register(
        self,
        file_id: str,
        path: Path,
        filename: str,
        purpose: str,
        seconds: float | None,
        owner: str,
        extra_fields: dict[str, str] | None = None,
    ) -> StoredFile:
        """Add a file whose content is on disk, or replace the file with the same id.

        Args:
            file_id: id of the file.
            path: path of the content.
            filename: name of the file.
            purpose: purpose of the file.
            seconds: seconds until the file expires; `None` for never.
            owner: owner of the file.
            extra_fields: fields of the upload that OpenAI's API does not have.
        """
        now = self._state.clock()
        expires_at = None if seconds is None else now + seconds
        size = path.stat().st_size
        file = StoredFile(file_id, path, size, now, filename, purpose, expires_at, owner, extra_fields or {})
        with self._state.lock:
            self._files[file_id] = file
        return file

    def find(self, file_id: str, owner: str) -> StoredFile | None:
        """Return a file, or `None` if the owner has no such file or the file has expired."""
        file = self._files.get(file_id)
        if file is None or file.owner != owner:
            return None
        return None if file.expires_at is not None and self._state.clock() >= file.expires_at else file

    def get(self, file_id: str, owner: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: 404, if the owner has no such file or the file has expired.
        """
        file = self.find(file_id, owner)
        if file is None:
            raise no_such_file(file_id)
        return file

    def list_newest_first(self, owner: str, purpose: str | None = None) -> list[StoredFile]:
        """Return the files of an owner, newest first.

        Args:
            owner: owner of the files.
            purpose: purpose of the files; `None` for every purpose.
        """
        files = [file for file_id in self._files if (file := self.find(file_id, owner)) is not None]
        return [file for file in reversed(files) if purpose in (None, file.purpose)]

    def delete(self, file: StoredFile) -> None:
        """Delete a file and its content."""
        with self._state.lock:
            del self._files[file.id]
        file.path.unlink(missing_ok=True)

    def all_files(self) -> Iterable[StoredFile]:
        """Return the files of every owner, oldest first."""
        return self._files.values()
