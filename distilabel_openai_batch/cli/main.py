"""The application with its commands."""

from distilabel_openai_batch.cli import ledger_commands, server_commands, setup_commands  # noqa: F401
from distilabel_openai_batch.cli.app import app

__all__ = ["app"]
