"""Embeddings through the sandbox: the same jobs and ledger as for an LLM."""

import pytest
from distilabel.models.embeddings.base import Embeddings
from distilabel.pipeline import Pipeline
from distilabel.steps import EmbeddingGeneration, LoadDataFromDicts
from distilabel.steps.tasks import GenerateEmbeddings
from openai import OpenAI

from distilabel_openai_batch import OpenAIBatchEmbeddings, OpenAIBatchLLM
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.environment import API_KEY, load_as_new_process

pytestmark = pytest.mark.usefixtures("small_packs")

MODEL = "text-embedding-3-small"
TEXTS = [f"Number {i}." for i in range(7)]
ROWS = [{"text": text} for text in TEXTS]
FAILS = RequestFailure(contains="Number 3.", status=400, message="Not this one.")


def embeddings(**fields) -> OpenAIBatchEmbeddings:
    return OpenAIBatchEmbeddings(model=MODEL, **{"min_poll_interval": 0.05, **fields})


def encode_in_new_process(**fields) -> list:
    """Return the vectors that a new process gets."""
    return load_as_new_process(embeddings(**fields)).encode(TEXTS)


def test_vectors_equal_those_of_the_synchronous_endpoint(sandbox):
    """The vectors stand in the order of the texts, and a second run submits nothing."""
    client = OpenAI(base_url=sandbox.base_url, api_key=API_KEY)
    theirs = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    assert encode_in_new_process() == [pytest.approx(item.embedding) for item in theirs.data]
    assert encode_in_new_process(max_poll_interval=9.0) == encode_in_new_process()
    books = sandbox.books()
    assert len(books.batches) == 1
    assert books.batches[0]["endpoint"] == "/v1/embeddings"
    assert set(books.billed.values()) == {1}


def test_failed_text_has_no_vector(sandbox):
    """The other texts have their vectors."""
    sandbox.configure(failures=[FAILS])
    assert [i for i, vector in enumerate(encode_in_new_process()) if vector is None] == [3]


def test_dimensions_set_the_length_of_the_vectors(sandbox):
    assert {len(vector) for vector in encode_in_new_process(dimensions=8)} == {8}


def test_all_rows_of_a_step_are_one_job(sandbox, tmp_path):
    """`EmbeddingGeneration` gets the whole dataset at once. The pipeline's YAML holds no key, and can be loaded."""
    with Pipeline(name="embedding", cache_dir=tmp_path) as pipeline:
        embed = EmbeddingGeneration(name="embed", embeddings=embeddings(), input_batch_size=2)
        LoadDataFromDicts(name="load", data=ROWS, batch_size=3) >> embed
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")
    assert API_KEY not in (tmp_path / "pipeline.yaml").read_text(encoding="utf-8")
    read = Pipeline.from_yaml(tmp_path / "pipeline.yaml").dag.get_step("embed")["step"]
    assert isinstance(read.embeddings, OpenAIBatchEmbeddings)
    assert isinstance(read.embeddings, Embeddings)

    rows = pipeline.run(use_cache=False)["default"]["train"].to_list()
    assert [row["text"] for row in rows] == TEXTS
    assert all(row["embedding"] and row["model_name"] == MODEL for row in rows)
    assert len(sandbox.books().batches) == 1


def test_generate_embeddings_runs_with_an_embedding_model(sandbox):
    """`OpenAIBatchLLM` serves the Task; only the failed row has `None`."""
    sandbox.configure(failures=[FAILS])
    step = GenerateEmbeddings(name="embed", llm=OpenAIBatchLLM(model=MODEL, min_poll_interval=0.05), input_batch_size=2)
    step.load()
    rows = next(step.process_applying_mappings([dict(row) for row in ROWS]))
    step.unload()
    assert [row["embedding"] is None for row in rows] == [i == 3 for i in range(7)]
    assert [row["embedding"] for row in rows[:3]] == encode_in_new_process()[:3]
    assert len(sandbox.books().batches) == 2
