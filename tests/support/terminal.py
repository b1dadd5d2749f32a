"""Pseudo-terminals for tests of bars, and the screen that results from the written text."""

from __future__ import annotations

import os
import pty
import re
import threading


class Terminal:
    """Pseudo-terminal that records the written text.

    Attributes:
        file: the end of the terminal that a program writes to.
        written: the recorded chunks of bytes.
    """

    def __init__(self) -> None:
        self._end, other = pty.openpty()
        self.file = open(other, "w", buffering=1, encoding="utf-8")  # noqa: SIM115  # closed by `close`
        self.written: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._end, 65_536):
                self.written.append(chunk)
        except OSError:
            # No process has the terminal open any more → Linux raises EIO.
            return

    def close(self) -> str:
        """Close the terminal and return the written text."""
        if not self.file.closed:
            self.file.close()
            self._reader.join(10)
            os.close(self._end)
        return b"".join(self.written).decode()


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows at the end; rich moves up, erases lines and writes them again."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.endswith("A") and part[0] == "\x1b":
            row -= int(part[2:-1] or 1)
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def strip_escapes(written: str) -> str:
    """Return a text without colours and cursor movements."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written)
