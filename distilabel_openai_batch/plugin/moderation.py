"""`OpenAIBatchModeration`: moderation of texts and images through the same jobs and ledger as an LLM's answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from distilabel.utils.serialization import _Serializable
from pydantic import ConfigDict, Field, PrivateAttr

from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.item_calls import submit_items
from distilabel_openai_batch.plugin.public_class import public_class

_ENDPOINT = "/v1/moderations"


@public_class
class OpenAIBatchModeration(BatchClient, _Serializable):
    """OpenAI's moderation models through the Batch API. Moderation is free; a batch avoids its rate limits.

    Use this class with the step `ModerateTexts`. A row whose request failed has `None`; the log gives the reason.

    {fields}

    Examples:
        Moderate texts:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel_openai_batch import ModerateTexts, OpenAIBatchModeration

        with Pipeline() as pipeline:
            load = LoadDataFromDicts(data=[{"text": "Why is the sky blue?"}])
            load >> ModerateTexts(moderation_model=OpenAIBatchModeration())

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, validate_default=True, protected_namespaces=())

    model: str = Field(default="omni-moderation-latest", description="Name of the moderation model.")

    _logger: logging.Logger = PrivateAttr(default_factory=lambda: logging.getLogger("distilabel.moderation"))

    def moderate(self, inputs: Sequence[Any]) -> list[dict[str, Any] | None]:
        """Moderate inputs, in as few batch jobs as possible.

        Args:
            inputs: texts, or lists of parts with texts and images in the format of the API.

        Returns:
            For each input, in order, the API's result with `flagged`, `categories` and `category_scores`; `None` where
            the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        return self.wait_for(
            partial(submit_items, self, _ENDPOINT, {"model": self.model}, "input", inputs, _first_result, "result")
        )


def _first_result(body: Mapping[str, Any]) -> dict[str, Any] | None:
    results = body.get("results")
    result = results[0] if isinstance(results, list) and results else None
    return result if isinstance(result, dict) and isinstance(result.get("flagged"), bool) else None
