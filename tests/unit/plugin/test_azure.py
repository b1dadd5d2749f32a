"""`AzureOpenAIBatchLLM` without a server: fields, environment, and settings of a session."""

from __future__ import annotations

import pytest
from distilabel.models.llms import AzureOpenAILLM

from distilabel_openai_batch import AzureOpenAIBatchLLM, InvalidSettingError, MissingSettingError, OpenAIBatchLLM

DAY = 86_400.0
ENVIRONMENT = {
    "AZURE_OPENAI_ENDPOINT": "https://my-resource.openai.azure.com",
    "AZURE_OPENAI_API_KEY": "sk-secret",
    "OPENAI_API_VERSION": "2024-10-21",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_missing_setting_is_an_error_that_names_the_variable(monkeypatch, name):
    monkeypatch.delenv(name)

    with pytest.raises(MissingSettingError, match=f"export {name}=") as raised:
        AzureOpenAIBatchLLM(model="a-deployment").load()

    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("fields", [{"model": "gpt-5-pro"}, {"model": "a-deployment", "endpoint": "responses"}])
def test_responses_need_the_versioned_address(fields):
    with pytest.raises(InvalidSettingError, match="Write the address with `/openai/v1/`"):
        AzureOpenAIBatchLLM(**fields).check_access()

    address = f"{ENVIRONMENT['AZURE_OPENAI_ENDPOINT']}/openai/v1/"
    AzureOpenAIBatchLLM(**fields, base_url=address).check_access()
    AzureOpenAIBatchLLM(**fields | {"endpoint": "chat"}).check_access()


def test_a_target_uri_of_the_responses_api_decides_the_endpoint():
    """The older address of the Responses API has no batches, so the error says what to write."""
    host = ENVIRONMENT["AZURE_OPENAI_ENDPOINT"]
    llm = AzureOpenAIBatchLLM(model="a-deployment", base_url=f"{host}/openai/v1/responses")
    llm.check_access()
    assert llm._endpoint() == "responses"
    assert llm.model_copy(update={"endpoint": "chat"})._endpoint() == "chat"
    assert llm.model_copy(update={"base_url": f"{host}/openai/v1/chat/completions"})._endpoint() == "chat"

    older = llm.model_copy(update={"base_url": f"{host}/openai/responses?api-version=2025-04-01-preview"})
    with pytest.raises(InvalidSettingError, match="Write the address with `/openai/v1/`"):
        older.check_access()


def test_fields_include_those_of_azureopenaillm():
    """The defaults and the environment are the same, and a run can set each field."""
    ours, theirs = AzureOpenAIBatchLLM(model="a-deployment"), AzureOpenAILLM(model="a-deployment")

    assert theirs.model_dump() == ours.model_dump(include=set(AzureOpenAILLM.model_fields))
    assert isinstance(ours, OpenAIBatchLLM)
    described = {info["name"]: info.get("description") for info in ours.get_runtime_parameters_info()}
    assert all(described[name] for name in ("base_url", "api_key", "api_version"))


def test_defaults_are_azures_limits():
    """Jobs hold up to 100,000 requests, and polls of a job are at least a minute apart."""
    llm = AzureOpenAIBatchLLM(model="a-deployment")
    schedule = llm.session_settings().jobs.schedule

    assert llm.max_requests_per_job == 100_000
    assert [schedule.interval(age) for age in (0.0, 60.0, DAY)] == [60.0, 60.0, 65.0]


@pytest.mark.parametrize("slash", ["", "/"])
def test_session_settings_are_azures(slash):
    """The address has no version, and a job may go on after its window."""
    llm = AzureOpenAIBatchLLM(model="a-deployment", base_url=f"https://my-resource.openai.azure.com{slash}")

    settings = llm.session_settings()

    assert settings.base_url == "https://my-resource.openai.azure.com/openai"
    assert settings.azure_api_version == "2024-10-21"
    assert not settings.jobs.window_binds
