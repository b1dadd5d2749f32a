"""`AzureOpenAIBatchLLM`: the same through Azure OpenAI, whose Batch API differs in more than its address."""

from __future__ import annotations

import os
from dataclasses import replace

from distilabel.mixins.runtime_parameters import RuntimeParameter
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, SecretStr

from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.errors import MissingSettingError
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM

_ENDPOINT = "AZURE_OPENAI_ENDPOINT"
_API_KEY = "AZURE_OPENAI_API_KEY"
_API_VERSION = "OPENAI_API_VERSION"


# Not a subclass of distilabel's `AzureOpenAILLM`, whose `load` fails in 1.5.3: it patches a module that is not there.
class AzureOpenAIBatchLLM(OpenAIBatchLLM):
    """Azure OpenAI LLM running through Azure's Batch API.

    It takes the place of `AzureOpenAILLM` as `OpenAIBatchLLM` takes that of `OpenAILLM`. The deployment must be one for
    batches (Global Batch or Data Zone Batch).

    Attributes:
        model: the name of the deployment.
        base_url: the endpoint of the Azure OpenAI resource (`"https://….openai.azure.com"`). Defaults to
            `$AZURE_OPENAI_ENDPOINT`.
        api_key: the key of the resource. Defaults to `$AZURE_OPENAI_API_KEY`.
        api_version: the version of the API (`"2024-10-21"`). Defaults to `$OPENAI_API_VERSION`.
        max_requests_per_job: the requests in one job, at most. Defaults to `100_000`, which is
            [Azure's limit](https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#error-codes).
        min_poll_interval: the seconds between two looks at a job, at least. Defaults to `60.0`, which is
            [what Azure asks for](https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#track-batch-job-progress).

    Runtime parameters:
        - `base_url`: the endpoint of the Azure OpenAI resource. Defaults to `$AZURE_OPENAI_ENDPOINT`.
        - `api_key`: the key of the resource. Defaults to `$AZURE_OPENAI_API_KEY`.
        - `api_version`: the version of the API. Defaults to `$OPENAI_API_VERSION`.
        - `max_requests_per_job`: the requests in one job, at most. Defaults to `100_000`.
        - `min_poll_interval`: the seconds between two looks at a job, at least. Defaults to `60.0`.

    Icon:
        `:material-microsoft-azure:`

    Examples:
        Generate text with a deployment for batches:

        ```python
        from distilabel_openai_batch import AzureOpenAIBatchLLM

        llm = AzureOpenAIBatchLLM(model="gpt-4o-mini-batch", api_version="2024-10-21")

        llm.load()

        output = llm.generate_outputs(inputs=[[{"role": "user", "content": "Hello world!"}]])
        ```
    """

    base_url: RuntimeParameter[str] | None = Field(
        default_factory=lambda: os.getenv(_ENDPOINT), description="The endpoint of the Azure OpenAI resource."
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=lambda: os.getenv(_API_KEY), description="The key of the Azure OpenAI resource."
    )
    api_version: RuntimeParameter[str] | None = Field(
        default_factory=lambda: os.getenv(_API_VERSION), description="The version of Azure's API."
    )
    max_requests_per_job: RuntimeParameter[PositiveInt] = Field(
        default=100_000, description="The requests in one job, at most."
    )
    min_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=60.0, description="The seconds between two looks at a job, at least."
    )

    _base_url_env_var: str = PrivateAttr(_ENDPOINT)
    _api_key_env_var: str = PrivateAttr(_API_KEY)

    def load(self) -> None:
        """Prepares the calls to the server; none is made yet.

        Raises:
            MissingSettingError: there is no endpoint, no API key or no API version.
            ValueError: `structured_output` cannot be asked for.
        """
        for name, variable in (("base_url", _ENDPOINT), ("api_version", _API_VERSION)):
            if not getattr(self, name):
                raise MissingSettingError(
                    f"{type(self).__name__} has no `{name}`. Set the environment variable {variable}"
                    f" (`export {variable}=…`), or pass `{name}=…`."
                )
        super().load()

    def _session_settings(self) -> SessionSettings:
        settings = super()._session_settings()
        return replace(
            settings,
            # However the endpoint is written, its questions are the same.
            base_url=f"{str(self.base_url).rstrip('/')}/openai",
            azure_api_version=self.api_version,
            # Azure aims at 24 hours, and does not end the jobs that take longer.
            jobs=replace(settings.jobs, window_binds=False),
        )


AzureOpenAIBatchLLM.__module__ = "distilabel_openai_batch"
