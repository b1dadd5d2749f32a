"""Expiry of files against the sandbox, at OpenAI and on Azure."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchEmbeddings, OpenAIBatchLLM, RunError
from distilabel_openai_batch.sandbox import Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": "Say number 1."}]]
DAY = 86_400


def lifetimes(sandbox) -> dict[str, int | None]:
    """Return the seconds from the creation to the expiry of the files, by their purpose."""
    return {
        file["purpose"]: file["expires_at"] and file["expires_at"] - file["created_at"]
        for file in sandbox.books().files
    }


def generate(llm) -> list[str | None]:
    return [output["generations"][0] for output in load_as_new_process(llm).generate(QUESTIONS)]


def test_files_expire_as_the_fields_say(sandbox):
    fields = {"input_expires_after": 7 * DAY, "output_expires_after": 3_600}

    assert all(generate(OpenAIBatchLLM(model="gpt-6-luna", min_poll_interval=0.02, **fields)))

    assert lifetimes(sandbox) == {"batch": 7 * DAY, "batch_output": 3_600}


@pytest.fixture
def azure(sandbox, monkeypatch, quick_retries):
    """Make the sandbox an Azure OpenAI resource that holds two files without an expiry."""
    sandbox.reset(Settings(dialect=DIALECTS["azure"].model_copy(update={"max_kept_files": 2})))
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", sandbox.base_url.removesuffix("/v1"))
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", API_KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    return sandbox


def test_files_on_azure_expire_by_default(azure):
    """More files fit into a resource than without an expiry."""
    fields = {"min_poll_interval": 0.02, "reuse_answers": False}
    for _ in range(3):
        assert all(generate(AzureOpenAIBatchLLM(model="a-deployment", **fields)))
    assert set(lifetimes(azure).values()) == {30 * DAY}

    kept = {"input_expires_after": None, "output_expires_after": None}
    with pytest.raises(RunError, match="quotaExceeded"):
        generate(AzureOpenAIBatchLLM(model="a-deployment", **fields, **kept))


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        (OpenAIBatchLLM, 3_599),
        (OpenAIBatchLLM, 30 * DAY + 1),
        (OpenAIBatchEmbeddings, 0),
        (AzureOpenAIBatchLLM, 14 * DAY - 1),
    ],
)
@pytest.mark.parametrize("field", ["input_expires_after", "output_expires_after"])
def test_expiry_outside_the_bounds_is_refused(model, field, seconds):
    with pytest.raises(ValidationError, match=field):
        model(model="m", **{field: seconds})
