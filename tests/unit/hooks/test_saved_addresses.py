"""Tests of the addresses in saved pipelines."""

from __future__ import annotations

import pytest
import yaml
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchLLM

SANDBOX = "http://127.0.0.1:8000/v1"


def saved_address(path, **fields) -> str | None:
    """Return the address of the LLM in a saved pipeline, and check that the file makes a pipeline again."""
    with Pipeline(name="saved") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
        load >> TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused", **fields))
    pipeline.save(path, format="yaml")
    assert Pipeline.from_yaml(path).dag.get_step("generate")["step"].llm.model == "gpt-4o-mini"
    steps = [each["step"] for each in yaml.safe_load(path.read_text())["pipeline"]["steps"]]
    [llm] = [step["llm"] for step in steps if "llm" in step]
    return llm.get("base_url")


def test_an_address_from_the_environment_is_not_saved(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", SANDBOX)
    assert saved_address(tmp_path / "pipeline.yaml") is None


def test_a_client_without_an_address_is_saved(monkeypatch, tmp_path):
    """Azure's class has no address of its own."""
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with Pipeline(name="saved") as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
        load >> TextGeneration(name="generate", llm=AzureOpenAIBatchLLM(model="a-deployment"))
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")
    assert (tmp_path / "pipeline.yaml").exists()


@pytest.mark.parametrize("environment", [SANDBOX, "http://other/v1"])
def test_an_address_that_the_user_set_is_saved(monkeypatch, tmp_path, environment):
    monkeypatch.setenv("OPENAI_BASE_URL", environment)
    assert saved_address(tmp_path / "pipeline.yaml", base_url=SANDBOX) == SANDBOX


def test_the_signature_of_the_steps_names_the_server(monkeypatch):
    """A run at another server does not find the rehearsal's cache."""
    signatures = set()
    for address in (SANDBOX, "https://api.openai.com/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with Pipeline(name="saved") as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": "Say it."}])
            load >> TextGeneration(name="generate", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused"))
        signatures.add(pipeline.aggregated_steps_signature)
    assert len(signatures) == 2
