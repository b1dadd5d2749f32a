"""`OpenAIBatchEmbeddings` without a server."""

from __future__ import annotations

import base64
import struct

import pytest

from distilabel_openai_batch import OpenAIBatchEmbeddings
from distilabel_openai_batch.api.outcomes import Answer, Failure
from tests.unit.plugin.stubs import StubSession, StubSessions


def embeddings(*outcomes, **fields) -> tuple[OpenAIBatchEmbeddings, StubSession]:
    client = OpenAIBatchEmbeddings(model="text-embedding-3-small", api_key="sk-secret", **fields)
    session = StubSession(*outcomes)
    client.use_sessions(StubSessions(session))
    return client, session


def vector(*values: float) -> Answer:
    return Answer.of({"data": [{"embedding": list(values)}]})


def test_each_text_is_a_request():
    client, session = embeddings(vector(0.5), vector(1.5))

    assert client.encode(["a", "b"]) == [[0.5], [1.5]]
    assert session.sent == [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "encoding_format": "float", "input": text})
        for text in ("a", "b")
    ]


def test_dimensions_are_sent():
    client, session = embeddings(vector(0.5), dimensions=8)

    client.encode(["a"])

    assert session.sent[0][1]["dimensions"] == 8


def test_a_vector_in_base64_is_decoded():
    """A server may ignore `encoding_format`; the bytes are 32-bit floats."""
    encoded = base64.b64encode(struct.pack("<3f", 0.5, -1.5, 0.0)).decode()
    client, _ = embeddings(Answer.of({"data": [{"embedding": encoded}]}))
    assert client.encode(["a"]) == [[0.5, -1.5, 0.0]]


@pytest.mark.parametrize(
    "outcome",
    [
        Failure("No."),
        *(
            Answer.of({"data": data})
            for data in (None, [], [3], [{}], [{"embedding": "base64"}], [{"embedding": "AAA="}])
        ),
        *(Answer.of({"data": [{"embedding": vector}]}) for vector in (["0.5"], [0.5, None], [[0.5]], [True])),
    ],
    ids=repr,
)
def test_missing_vector_is_none(outcome):
    client, _ = embeddings(vector(0.5), outcome)

    assert client.encode(["a", "b"]) == [[0.5], None]


def test_model_name_is_the_model():
    client, _ = embeddings()

    assert client.model_name == "text-embedding-3-small"
