"""Log lines whose records name their event, for programs that read a log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from distilabel_openai_batch.display.command_lines import command_line
from distilabel_openai_batch.engine.observer import Observer


class EventLog:
    """Logger that gives each record the attributes `event` and `scope`, and the facts of the event.

    Args:
        logger: receives the records.
        scope: the scope's name on the command line.
        notify: receives the lines of `notice`, for a script whose user sees neither bars nor the log; `None` for no
            such script.
        ledger_dir: directory of the ledger that the user chose; `None` for the default directory.

    Attributes:
        scope: the scope's name on the command line.
    """

    def __init__(
        self,
        logger: logging.Logger,
        scope: str,
        notify: Callable[[str], None] | None = None,
        ledger_dir: str | None = None,
    ) -> None:
        self.scope = scope
        self._ledger_dir = ledger_dir
        self._logger = logger
        self._notify = notify

    def command_line(self, command: str, **options: str | None) -> str:
        """Return the line that calls a command for the scope, see `command_lines.command_line`."""
        return command_line(command, self.scope, self._ledger_dir, **options)

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

    def notice(self, event: str, text: str, **facts: object) -> None:
        """Log an event at the level `INFO`, see `info`, and show the line to the user of a script."""
        self._log(logging.INFO, event, text, facts)
        if self._notify:
            self._notify(text)

    def _log(self, level: int, event: str, text: str, facts: dict[str, object]) -> None:
        # Two more frames → the record names the place of the event.
        self._logger.log(level, text, extra={"event": event, "scope": self.scope, **facts}, stacklevel=3)


class LogObserver(Observer):
    """Base class of observers that log the events of one topic; a run's observer joins the topics.

    Args:
        log: receives the log lines.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
