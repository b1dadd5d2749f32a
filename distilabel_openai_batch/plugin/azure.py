"""`AzureOpenAIBatchLLM`: Azure OpenAI, whose Batch API has its own paths, key header, version and limits."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

from distilabel.mixins.runtime_parameters import RuntimeParameter
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, SecretStr

from distilabel_openai_batch.api.retention import LONGEST_SECONDS
from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.errors import MissingSettingError
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM
from distilabel_openai_batch.plugin.public_class import public_class

_ENDPOINT = "AZURE_OPENAI_ENDPOINT"
_API_KEY = "AZURE_OPENAI_API_KEY"
_API_VERSION = "OPENAI_API_VERSION"


# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch: 14 to 30 days.
AzureExpiry = Annotated[int, Field(ge=1_209_600, le=LONGEST_SECONDS)]
"""Seconds after which Azure deletes a file."""


# distilabel 1.5.3's `AzureOpenAILLM.load` patches a missing module and fails → no subclass of it.
@public_class
class AzureOpenAIBatchLLM(OpenAIBatchLLM):
    """Azure OpenAI LLM that answers through Azure's Batch API.

    `AzureOpenAIBatchLLM` replaces `AzureOpenAILLM` as `OpenAIBatchLLM` replaces `OpenAILLM`. The deployment must be of
    a batch type (Global Batch or Data Zone Batch).

    {fields}

    Icon:
        `:material-microsoft-azure:`

    Examples:
        Generate text with a deployment for batches:

        ```python
        from distilabel_openai_batch import AzureOpenAIBatchLLM

        llm = AzureOpenAIBatchLLM(model="gpt-6-luna-batch", api_version="2024-10-21")

        llm.load()

        output = llm.generate_outputs(inputs=[[{"role": "user", "content": "Hello world!"}]])
        ```
    """

    model: str = Field(description="Name of the deployment.")
    base_url: RuntimeParameter[str] | None = Field(
        default_factory=lambda: os.getenv(_ENDPOINT),
        description=(
            "Endpoint of the Azure OpenAI resource, for example `https://my-resource.openai.azure.com`. Defaults to"
            " `$AZURE_OPENAI_ENDPOINT`."
        ),
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=lambda: os.getenv(_API_KEY),
        description="Key of the Azure OpenAI resource. Defaults to `$AZURE_OPENAI_API_KEY`.",
    )
    api_version: RuntimeParameter[str] | None = Field(
        default_factory=lambda: os.getenv(_API_VERSION),
        description="Version of Azure's API, for example `2024-10-21`. Defaults to `$OPENAI_API_VERSION`.",
    )
    max_requests_per_job: RuntimeParameter[PositiveInt] = Field(
        default=100_000,
        description=(
            "Maximum number of requests in one job. 100,000 is"
            " [Azure's limit](https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#error-codes)."
        ),
    )
    min_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=60.0,
        description=(
            "Minimum time between two polls of a job, in seconds. Azure asks for"
            " [60 seconds](https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#track-batch-job-progress)."
        ),
    )

    input_expires_after: RuntimeParameter[AzureExpiry] | None = Field(
        default=LONGEST_SECONDS,
        description=(
            "Time until Azure deletes a job's input file, in seconds after the upload: 1,209,600 to 2,592,000. With an"
            " expiry, a resource holds [10,000 files in place of"
            " 500](https://learn.microsoft.com/azure/ai-services/openai/how-to/batch). `None`: the file is kept."
        ),
    )
    output_expires_after: RuntimeParameter[AzureExpiry] | None = Field(
        default=LONGEST_SECONDS,
        description=(
            "Time until Azure deletes a job's result files, in seconds after their creation: 1,209,600 to 2,592,000. An"
            " answer that is collected later is lost, and billed again. `None`: the files are kept."
        ),
    )

    _base_url_env_var: str = PrivateAttr(_ENDPOINT)
    _api_key_env_var: str = PrivateAttr(_API_KEY)

    def load(self) -> None:
        """Prepare the calls to the server; no call is made yet.

        Raises:
            MissingSettingError: the endpoint, the API key or the API version is missing.
            ValueError: the API does not support `structured_output` as given.
        """
        for name, variable in (("base_url", _ENDPOINT), ("api_version", _API_VERSION)):
            if not getattr(self, name):
                raise MissingSettingError(
                    f"{type(self).__name__} has no `{name}`. Set the environment variable {variable}"
                    f" (`export {variable}=…`), or pass `{name}=…`."
                )
        super().load()

    def session_settings(self) -> SessionSettings:
        """Build the settings of a session with Azure's address, API version and open-ended window."""
        settings = super().session_settings()
        address, mark, query = str(self.base_url).strip().partition("?")
        return replace(
            settings,
            # With or without a slash at its end, the endpoint is the same server → requests keep their digests.
            base_url=f"{address.rstrip('/')}/openai{mark}{query}",
            azure_api_version=self.api_version,
            # Azure aims at 24 hours and lets longer jobs go on → they are not cancelled.
            jobs=replace(settings.jobs, window_binds=False),
        )
