"""Run any distilabel pipeline through the OpenAI Batch API, at half the price."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distilabel_openai_batch.display.telemetry import OpenTelemetryObserver
    from distilabel_openai_batch.engine.observer import Observer
    from distilabel_openai_batch.errors import (
        AuthenticationError,
        BatchFailedError,
        BudgetError,
        ConnectionFailedError,
        InternalError,
        InvalidParametersError,
        InvalidSettingError,
        LedgerError,
        MissingSettingError,
        NoGenerationsError,
        OpenAIBatchError,
        QuotaError,
        RequestsFailedError,
        RunError,
        StorageFullError,
        UnmatchedAnswersError,
    )
    from distilabel_openai_batch.plugin.azure import AzureOpenAIBatchLLM
    from distilabel_openai_batch.plugin.embeddings import OpenAIBatchEmbeddings
    from distilabel_openai_batch.plugin.image_generation import OpenAIBatchImageGeneration
    from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM
    from distilabel_openai_batch.plugin.moderation import OpenAIBatchModeration
    from distilabel_openai_batch.plugin.steps.load import LoadBatchResults
    from distilabel_openai_batch.plugin.steps.moderate import ModerateTexts
    from distilabel_openai_batch.plugin.steps.stream import StreamBatchResults
    from distilabel_openai_batch.plugin.steps.submit import SubmitBatch

__all__ = [
    "AuthenticationError",
    "AzureOpenAIBatchLLM",
    "BatchFailedError",
    "BudgetError",
    "ConnectionFailedError",
    "InternalError",
    "InvalidParametersError",
    "InvalidSettingError",
    "LedgerError",
    "LoadBatchResults",
    "MissingSettingError",
    "ModerateTexts",
    "NoGenerationsError",
    "Observer",
    "OpenAIBatchEmbeddings",
    "OpenAIBatchError",
    "OpenAIBatchImageGeneration",
    "OpenAIBatchLLM",
    "OpenAIBatchModeration",
    "OpenTelemetryObserver",
    "QuotaError",
    "RequestsFailedError",
    "RunError",
    "StorageFullError",
    "StreamBatchResults",
    "SubmitBatch",
    "UnmatchedAnswersError",
]

__version__ = "0.1.0"

# Modules of the public names that are no exceptions.
_MODULES = {
    "AzureOpenAIBatchLLM": "plugin.azure",
    "LoadBatchResults": "plugin.steps.load",
    "ModerateTexts": "plugin.steps.moderate",
    "Observer": "engine.observer",
    "OpenAIBatchEmbeddings": "plugin.embeddings",
    "OpenAIBatchImageGeneration": "plugin.image_generation",
    "OpenAIBatchLLM": "plugin.llm",
    "OpenAIBatchModeration": "plugin.moderation",
    "OpenTelemetryObserver": "display.telemetry",
    "StreamBatchResults": "plugin.steps.stream",
    "SubmitBatch": "plugin.steps.submit",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use.

    distilabel takes seconds to import, and the command line does not need distilabel to start.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "errors")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
