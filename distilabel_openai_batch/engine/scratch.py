"""Scratch files of a session: the bodies of its requests, and files that are needed for moments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Most bodies are read in the order in which they were added → read ahead.
_READ_AHEAD_BYTES = 65_536


@contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file that may be written, and delete the file when the context ends."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


class BodyStore:
    """A file of request bodies, which would take most of the memory of a million requests.

    Args:
        path: the path of the file; a file that is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._writer = path.open("wb")
        self._reader = path.open("rb", buffering=_READ_AHEAD_BYTES)
        self._end = 0
        self._is_flushed = True

    def add(self, body: bytes) -> StoredBody:
        """Append a body to the file."""
        self._writer.write(body)
        self._is_flushed = False
        stored = StoredBody(self, self._end, len(body))
        self._end += len(body)
        return stored

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file.

        Args:
            start: the offset of the first byte.
            length: the number of bytes.
        """
        if not self._is_flushed:
            self._writer.flush()
            self._is_flushed = True
        self._reader.seek(start)
        return self._reader.read(length)

    def close(self) -> None:
        """Close the file; its bodies can be read no more."""
        self._writer.close()
        self._reader.close()


class StoredBody:
    """A body in a `BodyStore`; `len` and `bytes` return those of the body itself.

    Args:
        store: the store.
        start: the offset of the body, in bytes.
        length: the length of the body, in bytes.
    """

    __slots__ = ("_length", "_start", "_store")

    def __init__(self, store: BodyStore, start: int, length: int) -> None:
        self._store = store
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return self._store.read(self._start, self._length)
