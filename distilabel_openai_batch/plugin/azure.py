"""`AzureOpenAIBatchLLM`: Azure OpenAI, whose Batch API has its own paths, key header, version and limits."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

from distilabel.mixins.runtime_parameters import RuntimeParameter
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, SecretStr

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.azure_addresses import read_azure_endpoint
from distilabel_openai_batch.api.azure_tokens import TOKEN_VARIABLE, TokenProvider, environment_token_provider
from distilabel_openai_batch.api.retention import LONGEST_SECONDS
from distilabel_openai_batch.engine.settings import SessionSettings
from distilabel_openai_batch.errors import InvalidSettingError, MissingSettingError
from distilabel_openai_batch.plugin.llm import OpenAIBatchLLM
from distilabel_openai_batch.plugin.model_parameters import Endpoint
from distilabel_openai_batch.plugin.public_class import public_class

_ENDPOINT = "AZURE_OPENAI_ENDPOINT"
_API_KEY = "AZURE_OPENAI_API_KEY"
_API_VERSION = "OPENAI_API_VERSION"


# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch: 14 to 30 days.
AzureExpiry = Annotated[int, Field(ge=1_209_600, le=LONGEST_SECONDS)]
"""Seconds after which Azure deletes a file."""


@functools.cache
def _is_responses_address(address: str) -> bool:
    """Return whether an address is a target URI of the Responses API; each request asks."""
    return read_azure_endpoint(address).is_responses


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
            "Endpoint of the Azure OpenAI resource, for example `https://my-resource.openai.azure.com`; the address"
            " with `/openai/v1/` and the portal's target URI are read too. Defaults to `$AZURE_OPENAI_ENDPOINT`."
        ),
    )
    api_key: RuntimeParameter[SecretStr] | None = Field(
        default_factory=lambda: os.getenv(_API_KEY),
        description="Key of the Azure OpenAI resource. Defaults to `$AZURE_OPENAI_API_KEY`.",
    )
    api_version: RuntimeParameter[str] | None = Field(
        default_factory=lambda: os.getenv(_API_VERSION),
        description=(
            "Version of Azure's API, for example `2024-10-21`. An address with `/openai/v1/` needs none, and a target"
            " URI has its own. Defaults to `$OPENAI_API_VERSION`."
        ),
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

    azure_ad_token_provider: Callable[[], str] | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description=(
            "Function that returns a valid token of Microsoft Entra ID before each call, in place of the key. In a"
            " pipeline, define the function at the top level of a module or script: a step's process imports it."
            " `None`: the key, else `$AZURE_OPENAI_AD_TOKEN`, else azure-identity's default credential (extra `azure`),"
            " which renews its tokens."
        ),
    )

    _base_url_env_var: str = PrivateAttr(_ENDPOINT)
    _api_key_env_var: str = PrivateAttr(_API_KEY)

    def check_access(self) -> None:
        """Check the endpoint, the version of the API, the deployment, and that there is a key or a token.

        Raises:
            MissingSettingError: the endpoint, the API version, or both key and token are missing.
            InvalidSettingError: the address names another deployment than `model`, or chats go to the Responses API,
                which only addresses with `/openai/v1/` serve.
        """
        if not self.base_url:
            raise self._missing("base_url", _ENDPOINT)
        endpoint = read_azure_endpoint(self.base_url)
        if not (endpoint.is_versioned or self.api_version or endpoint.api_version):
            raise self._missing("api_version", _API_VERSION)
        if endpoint.deployment not in (None, self.model):
            raise InvalidSettingError(
                f"The address names the deployment `{endpoint.deployment}`, and `model` is `{self.model}`. Write"
                f' `model="{endpoint.deployment}"`, or the address of the resource alone.'
            )
        if self._endpoint() == "responses" and not endpoint.is_versioned:
            raise InvalidSettingError(
                f"The chats of `{self.model}` go to /v1/responses, which the address {public_address(self.base_url)}"
                ' does not serve. Write the address with `/openai/v1/`, or `endpoint="chat"`.'
            )
        if not (self._key() or self._find_token_provider()):
            raise MissingSettingError(
                f"{type(self).__name__} has no API key. Set the environment variable {_API_KEY} (`export {_API_KEY}=…`)"
                f", or pass `api_key=…`. For Microsoft Entra ID install the extra `azure` and log in (`az login`), pass"
                f" `azure_ad_token_provider=…`, or set {TOKEN_VARIABLE}."
            )

    def _endpoint(self) -> Endpoint:
        """Return the endpoint for chats: the user's choice, else that of the target URI, else that of the model."""
        if self.endpoint is None and _is_responses_address(self.base_url or ""):
            return "responses"
        return super()._endpoint()

    def _missing(self, name: str, variable: str) -> MissingSettingError:
        return MissingSettingError(
            f"{type(self).__name__} has no `{name}`. Set the environment variable {variable}"
            f" (`export {variable}=…`), or pass `{name}=…`."
        )

    def _find_token_provider(self) -> TokenProvider | None:
        """Return the provider of tokens; `None` if the key is used, or if there is neither key nor token.

        A provider that the user passes comes before a key, which may come from the environment.
        """
        if self.azure_ad_token_provider or self._key():
            return self.azure_ad_token_provider
        found = environment_token_provider()
        return found[0] if found else None

    def session_settings(self) -> SessionSettings:
        """Build the settings of a session with Azure's address, API version, credential and open-ended window."""
        settings = super().session_settings()
        # With or without a slash at its end, the endpoint is the same server → requests keep their digests.
        endpoint = read_azure_endpoint(self.base_url or "")
        return replace(
            settings,
            base_url=endpoint.base_url,
            azure_api_version=None if endpoint.is_versioned else self.api_version or endpoint.api_version,
            token_provider=self._find_token_provider(),
            batch_api=self.batch_api or ("azure" if endpoint.is_versioned else None),
            # A gateway's host may hide Azure, which lets jobs go on after their window → they are not cancelled.
            jobs=replace(settings.jobs, window_binds=False),
        )
