"""`OpenAIBatchEmbeddings`: texts made into vectors through the same Batch API, ledger and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.embeddings.base import Embeddings
from pydantic import Field, PositiveInt

from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.api.requests import Frame
from distilabel_openai_batch.engine.calls import Call
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.plugin.base import BatchClient

ENDPOINT = "/v1/embeddings"


class OpenAIBatchEmbeddings(BatchClient, Embeddings):
    """OpenAI embeddings through the Batch API, at half the price of the synchronous endpoint.

    For `EmbeddingGeneration`. All rows of the step go into one job, however small its `input_batch_size` is. A row
    whose request failed for good has `None` for its embedding; the log says why. The other fields are those of
    `OpenAIBatchLLM`.

    Attributes:
        model: the name of the model (`"text-embedding-3-small"`).
        dimensions: the length of the vectors, for models that can shorten them. Defaults to `None`, for the model's
            own.

    Runtime parameters:
        - `dimensions`: the length of the vectors.

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

    dimensions: RuntimeParameter[PositiveInt] | None = Field(default=None, description="The length of the vectors.")

    def load(self) -> None:
        """Prepares the calls to the server; none is made yet.

        Raises:
            MissingSettingError: there is no API key.
        """
        Embeddings.load(self)
        super().load()

    @property
    def model_name(self) -> str:
        """The name of the model."""
        return str(self.model)

    def encode(self, inputs: list[str]) -> list[list[float] | None]:
        """Makes texts into vectors, in as few batch jobs as possible.

        Args:
            inputs: the texts.

        Returns:
            A vector for each, in order; `None` where the request failed.

        Raises:
            RunError: the run as a whole cannot go on.
        """
        return self.wait_for(partial(embed, self, inputs, self.dimensions))


async def embed(client: BatchClient, texts: Sequence[str], dimensions: int | None = None) -> list[list[float] | None]:
    """Makes texts into vectors; `None` where the request failed.

    Args:
        client: loaded, with a model for embeddings.
        texts: what is embedded.
        dimensions: the length of the vectors; the model's own if not given.
    """
    # Without it the SDK asks for base64, and decodes that: smaller on the wire, but what other servers do not know.
    body = {"model": client.model, "encoding_format": "float"} | ({"dimensions": dimensions} if dimensions else {})
    frame = Frame({**body, "input": ""}, "input")
    session: Session
    async with client.session() as session:
        outcomes = await session.ask([Call(ENDPOINT, {**body, "input": text}, frame=frame) for text in texts])
    return [_vector(outcome) for outcome in outcomes]


def _vector(outcome: Outcome) -> list[float] | None:
    data = outcome.body.get("data") if isinstance(outcome, Answer) else None
    first = data[0] if isinstance(data, list) and data else None
    vector = first.get("embedding") if isinstance(first, dict) else None
    return vector if isinstance(vector, list) else None


OpenAIBatchEmbeddings.__module__ = "distilabel_openai_batch"
