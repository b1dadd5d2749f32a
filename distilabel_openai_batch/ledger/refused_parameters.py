"""Parameters that a server refused for a model: later runs send other parameters from the start."""

from __future__ import annotations

from distilabel_openai_batch.ledger.connection import Connection

LIST_REFUSED = "SELECT model, parameter FROM refused_parameters WHERE base_url = ?"
"""Query of the models and refused parameters of a server."""

_INSERT = "INSERT OR IGNORE INTO refused_parameters (base_url, model, parameter) VALUES (?, ?, ?)"


class RefusedParameters:
    """The refused parameters of one server's models.

    Args:
        connection: the ledger file.
        base_url: the server's base URL.
    """

    def __init__(self, connection: Connection, base_url: str) -> None:
        self._connection = connection
        self._base_url = base_url

    def load(self) -> list[tuple[str, str]]:
        """Return pairs of a model's name and a parameter that the server refused for the model."""
        with self._connection.reading() as database:
            return database.execute(LIST_REFUSED, (self._base_url,)).fetchall()

    def record(self, model: str, parameter: str) -> None:
        """Record a parameter that the server refused for a model.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        with self._connection.transaction() as database:
            database.execute(_INSERT, (self._base_url, model, parameter))
