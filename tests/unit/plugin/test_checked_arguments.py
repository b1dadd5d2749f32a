"""Tests of the arguments of the public classes."""

from __future__ import annotations

import gc

import pytest
from distilabel.steps.tasks import TextGeneration
from pydantic import ValidationError

from distilabel_openai_batch import (
    AzureOpenAIBatchLLM,
    InvalidSettingError,
    LoadBatchResults,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
    StreamBatchResults,
    SubmitBatch,
)

LLMS = [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings]


@pytest.mark.parametrize("client_class", LLMS)
def test_misspelt_argument_of_a_client_is_reported_with_the_probable_name(client_class):
    with pytest.raises(InvalidSettingError) as raised:
        client_class(model="a-model", max_job=3, entirely_unknown=1)
    name = client_class.__name__
    assert str(raised.value) == (
        f"{name} has no argument `max_job`. Did you mean `max_jobs`? {name} has no argument `entirely_unknown`."
    )


@pytest.mark.parametrize("client_class", [OpenAIBatchLLM, AzureOpenAIBatchLLM])
@pytest.mark.parametrize("name", ["extra_body", "temperature", "max_new_tokens"])
def test_generation_parameter_as_an_argument_is_reported_with_its_place(client_class, name):
    with pytest.raises(InvalidSettingError, match=f'`generation_kwargs={{"{name}": …}}`'):
        client_class(model="a-model", **{name: 1})


@pytest.mark.parametrize("step_class", [StreamBatchResults, SubmitBatch, LoadBatchResults])
def test_misspelt_argument_of_a_step_is_reported_with_the_probable_name(step_class):
    task = TextGeneration(llm=OpenAIBatchLLM(model="a-model", api_key="sk-unused"))
    with pytest.raises(InvalidSettingError, match=r"has no argument `tasks`\. Did you mean `task`\?"):
        step_class(tasks=task)


def test_wrong_value_is_a_validation_error():
    with pytest.raises(ValidationError, match="max_jobs"):
        OpenAIBatchLLM(model="a-model", max_jobs=0)


@pytest.mark.filterwarnings("error")
def test_object_with_wrong_arguments_is_deleted_quietly():
    """distilabel's `__del__` reads an attribute that such an object lacks."""
    with pytest.raises(InvalidSettingError):
        OpenAIBatchLLM(model="a-model", max_job=3)
    gc.collect()
