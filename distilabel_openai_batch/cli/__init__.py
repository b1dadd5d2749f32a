"""Command line `distilabel-openai-batch`."""

from distilabel_openai_batch.cli.main import app

__all__ = ["app"]
