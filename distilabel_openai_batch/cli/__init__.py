"""The command line."""

from distilabel_openai_batch.cli.main import app

__all__ = ["app"]
