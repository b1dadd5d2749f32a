"""Environment of a test: paths, the key of the sandbox, and a client as a new process would load it."""

from __future__ import annotations

from pathlib import Path

from distilabel_openai_batch.engine import calls

ROOT = Path(__file__).parents[2]
API_KEY = "sk-sandbox-key-that-must-not-leak"


def load_as_new_process(client):
    """Load an LLM or embeddings as a new process would, so that occurrences of a request are counted from 0."""
    calls.scope_memories.clear()
    client.load()
    return client
