"""Fixtures for tests of `hooks/`."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import registry


@pytest.fixture
def llm() -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused")


@pytest.fixture
def unpatched():
    """distilabel as released, until the test ends."""
    registry.uninstall()
    yield
    registry.uninstall()
    registry.install()
