"""Keeps the bodies of requests on the disk: most of what a million of them hold."""

from __future__ import annotations

from pathlib import Path

# Bytes read at once: most are read in the order in which they were added.
_READ_AHEAD = 65_536


class Spool:
    """A file to which texts are added, and from which they are read again in any order.

    Args:
        path: where it lies; it is made anew.
    """

    def __init__(self, path: Path) -> None:
        self._writer = path.open("wb")
        self._reader = path.open("rb", buffering=_READ_AHEAD)
        self._end = 0
        self._is_flushed = True

    def add(self, text: bytes) -> Spooled:
        """Writes a text to the disk."""
        self._writer.write(text)
        self._is_flushed = False
        spooled = Spooled(self, self._end, len(text))
        self._end += len(text)
        return spooled

    def read(self, start: int, length: int) -> bytes:
        """The bytes from a place on."""
        if not self._is_flushed:
            self._writer.flush()
            self._is_flushed = True
        self._reader.seek(start)
        return self._reader.read(length)

    def close(self) -> None:
        """Closes the file. What is in it cannot be read any more."""
        self._writer.close()
        self._reader.close()


class Spooled:
    """A text on the disk, of which `len` and `bytes` are those of the text itself.

    Args:
        spool: where it is.
        start: where it begins there, in bytes.
        length: how long it is, in bytes.
    """

    __slots__ = ("_length", "_spool", "_start")

    def __init__(self, spool: Spool, start: int, length: int) -> None:
        self._spool = spool
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __bytes__(self) -> bytes:
        return self._spool.read(self._start, self._length)
