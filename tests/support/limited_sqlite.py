"""SQLite connections of a file system without shared memory, which SQLite's write-ahead log needs."""

from __future__ import annotations

import sqlite3


class UnsharedConnection(sqlite3.Connection):
    """Connection that fails, or stays in another journal mode, when a write-ahead log is to be opened.

    Attributes:
        error: the message of SQLite; empty for a file that stays in another journal mode.
    """

    error = ""

    def execute(self, sql, parameters=()):
        if "journal_mode = WAL" in sql:
            if self.error:
                raise sqlite3.OperationalError(self.error)
            return super().execute("PRAGMA journal_mode = DELETE")
        return super().execute(sql, parameters)


class UnreadableConnection(sqlite3.Connection):
    """Connection that fails at every statement, as if the file had a write-ahead log."""

    def execute(self, sql, parameters=()):
        raise sqlite3.OperationalError("locking protocol")


def connect_with(monkeypatch, factory: type[sqlite3.Connection]) -> None:
    """Let each new connection of SQLite be of a class."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=factory, **kwargs))
