"""Log lines whose records name their event, for programs that read a log."""

from __future__ import annotations

import logging


class EventLog:
    """Logger that gives each record the attributes `event` and `scope`, and the facts of the event.

    Args:
        logger: receives the records.
        scope: the scope's name on the command line.
    """

    def __init__(self, logger: logging.Logger, scope: str) -> None:
        self._logger = logger
        self._scope = scope

    def info(self, event: str, text: str, **facts: object) -> None:
        """Log an event at the level `INFO`.

        Args:
            event: the event's name, as the method of `Observer` without `on_`.
            text: the line for people.
            facts: further attributes of the record; JSON can hold each value.
        """
        self._log(logging.INFO, event, text, facts)

    def warning(self, event: str, text: str, **facts: object) -> None:
        """Log an event at the level `WARNING`, see `info`."""
        self._log(logging.WARNING, event, text, facts)

    def _log(self, level: int, event: str, text: str, facts: dict[str, object]) -> None:
        # Two more frames → the record names the place of the event.
        self._logger.log(level, text, extra={"event": event, "scope": self._scope, **facts}, stacklevel=3)
