"""The environment of a test: paths, the key of the sandbox, and a client as a new process has it."""

from __future__ import annotations

from pathlib import Path

from distilabel_openai_batch.engine import calls

ROOT = Path(__file__).parents[2]
API_KEY = "sk-sandbox-key-that-must-not-leak"


def in_a_new_process(client):
    """Loads an LLM or embeddings as in a process that begins now, with the first number of each question."""
    calls._scopes.clear()
    client.load()
    return client
