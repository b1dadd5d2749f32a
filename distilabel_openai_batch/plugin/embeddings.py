"""`OpenAIBatchEmbeddings`: embeddings through the same jobs and ledger as an LLM's answers."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.embeddings.base import Embeddings
from pydantic import Field, PositiveInt

from distilabel_openai_batch.plugin.base import BatchClient
from distilabel_openai_batch.plugin.item_calls import submit_items
from distilabel_openai_batch.plugin.public_class import public_class

ENDPOINT = "/v1/embeddings"

# Types of JSON's numbers.
_NUMBERS = frozenset({int, float})


@public_class
class OpenAIBatchEmbeddings(BatchClient, Embeddings):
    """OpenAI embeddings through the Batch API, at half the price of the synchronous endpoint.

    Use this class with `EmbeddingGeneration`. All rows of the step go into one job, however small `input_batch_size`
    is. A row whose request failed for good has `None` for its embedding; the log gives the reason.

    {fields}

    Examples:
        Generate embeddings:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import EmbeddingGeneration, LoadDataFromDicts
        from distilabel_openai_batch import OpenAIBatchEmbeddings

        with Pipeline() as pipeline:
            load = LoadDataFromDicts(data=[{"text": "Why is the sky blue?"}])
            load >> EmbeddingGeneration(embeddings=OpenAIBatchEmbeddings(model="text-embedding-3-small"))

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    dimensions: RuntimeParameter[PositiveInt] | None = Field(
        default=None,
        description="Length of the vectors, for models that can shorten them. `None`: the model's own length.",
    )

    def load(self) -> None:
        """Prepare the calls to the server; no call is made yet.

        Raises:
            MissingSettingError: the API key is missing.
            BudgetError: `budget` is set, and the price of the model is unknown.
        """
        Embeddings.load(self)
        super().load()

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.model)

    def encode(self, inputs: list[str]) -> list[list[float] | None]:
        """Embed texts, in as few batch jobs as possible.

        Args:
            inputs: the texts.

        Returns:
            The vector of each text, in order; `None` where the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        return self.wait_for(partial(embed, self, inputs, self.dimensions))


async def embed(client: BatchClient, texts: Sequence[str], dimensions: int | None = None) -> list[list[float] | None]:
    """Embed texts through a client's session.

    Args:
        client: a loaded client whose model is for embeddings.
        texts: the texts.
        dimensions: length of the vectors; `None` for the model's own length.

    Returns:
        The vector of each text, in order; `None` where the request failed.
    """
    # The SDK would ask for base64, which other servers do not support → ask for numbers.
    body = {"model": client.model, "encoding_format": "float"} | ({"dimensions": dimensions} if dimensions else {})
    return await submit_items(client, ENDPOINT, body, "input", texts, _vector, "vector")


def _vector(body: Mapping[str, Any]) -> list[float] | None:
    """Return the vector of an answer's body; `None` for a body without a vector of numbers."""
    data = body.get("data")
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    if isinstance(vector, str):
        return _decode_vector(vector)
    return vector if isinstance(vector, list) and _NUMBERS.issuperset(map(type, vector)) else None


def _decode_vector(text: str) -> list[float] | None:
    """Return a vector in base64, which servers return that ignore `encoding_format`; `None` for another text.

    The bytes are 32-bit floats: https://platform.openai.com/docs/api-reference/embeddings/create
    """
    try:
        content = base64.b64decode(text, validate=True)
        return [number for (number,) in struct.iter_unpack("<f", content)]
    except (ValueError, struct.error):
        return None
