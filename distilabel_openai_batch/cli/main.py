"""The application with all commands registered."""

from distilabel_openai_batch.cli import ledger_commands, notice_commands, server_commands, setup_commands, ui_command  # noqa: F401
from distilabel_openai_batch.cli.application import app

__all__ = ["app"]
