"""Adapters: the calls by which servers with other shapes of a Batch API upload files, create batches and list them.

Replies are read leniently for every server (`api/batches.py`, `api/replies.py`), so that an adapter contains only the
requests that a server wants in another shape. The adapter follows from the host, or from the field `batch_api`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any
from urllib.parse import urlsplit

import httpx
import openai

from distilabel_openai_batch.api.azure_addresses import is_versioned_azure_address
from distilabel_openai_batch.api.batches import KEY_METADATA
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.retention import DEFAULT_RETENTION, Retention
from distilabel_openai_batch.errors import InvalidSettingError


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The parameters of one batch.

    Attributes:
        input_file_id: the id that `FilesAPI.upload` returned.
        endpoint: the path of all its requests (`"/v1/chat/completions"`).
        completion_window: the API's parameter (`"24h"`).
        key: a text that no other batch has. The metadata hold it, so that a batch whose reply was lost is found.
        metadata: further metadata.
        retention: the expiry of the result files.
        extra_fields: further parameters, by name.
    """

    input_file_id: str
    endpoint: str
    completion_window: str
    key: str
    metadata: Mapping[str, str]
    retention: Retention = DEFAULT_RETENTION
    extra_fields: Mapping[str, Any] = field(default_factory=dict, repr=False)


class OpenAIAdapter:
    """Calls of OpenAI's Batch API.

    Each method that makes a call returns a response with the attribute `content`, or raises an error of the SDK.

    Attributes:
        purpose: purpose of an input file.
        max_bytes: maximum size of an input file, if the limit is lower than OpenAI's.
    """

    purpose = "batch"
    max_bytes: int | None = None

    def input_line(self, request: Request) -> bytes:
        """Return a request's line of an input file, line feed included."""
        return request.line()

    async def upload(self, client: openai.AsyncOpenAI, file: IO[bytes], name: str, fields: Mapping[str, Any]) -> Any:
        """Upload an input file.

        Args:
            client: the SDK's client, without retries.
            file: the content.
            name: the file's name on the server.
            fields: further fields of the upload.
        """
        return await client.with_raw_response.files.create(
            file=(name, file),
            purpose=self.purpose,  # type: ignore[arg-type]
            extra_body=dict(fields),
        )

    async def create(self, client: openai.AsyncOpenAI, order: BatchOrder) -> Any:
        """Create a batch."""
        return await client.with_raw_response.batches.create(
            input_file_id=order.input_file_id,
            endpoint=order.endpoint,  # type: ignore[arg-type]
            completion_window=order.completion_window,  # type: ignore[arg-type]
            metadata={KEY_METADATA: order.key, **order.metadata},
            extra_body={**order.extra_fields, **order.retention.creation_parameters()},
        )

    async def list_page(self, client: openai.AsyncOpenAI, after: str | None) -> Any:
        """Request a page of the list of batches.

        Args:
            client: the SDK's client, without retries.
            after: the id of the last batch of the page before; `None` for the first page.
        """
        return await client.with_raw_response.batches.list(limit=100, extra_query={"after": after} if after else {})


class AzureAdapter(OpenAIAdapter):
    """Calls of Azure's newer API below `/openai/v1`, where chats, completions and embeddings have no version in front.

    Azure's older API has such names too, which the client of the SDK needs; a request keeps OpenAI's name as a part of
    its identity here. https://learn.microsoft.com/azure/foundry/openai/how-to/batch
    """

    def input_line(self, request: Request) -> bytes:
        """Return a line with Azure's name of the endpoint."""
        return request.line(azure_endpoint(request.endpoint))

    async def create(self, client: openai.AsyncOpenAI, order: BatchOrder) -> Any:
        """Create a batch with Azure's name of the endpoint."""
        return await super().create(client, replace(order, endpoint=azure_endpoint(order.endpoint)))


def azure_endpoint(endpoint: str) -> str:
    """Return Azure's name of an endpoint; `/v1/responses` keeps its version."""
    return endpoint if endpoint.endswith("/responses") else endpoint.removeprefix("/v1")


class TogetherAdapter(OpenAIAdapter):
    """Calls of Together's Batch API, which keeps no metadata: a batch is found by its input file.

    https://docs.together.ai/docs/inference/batch/tutorial, https://docs.together.ai/reference/upload-file
    """

    purpose = "batch-api"
    max_bytes = 100_000_000

    def input_line(self, request: Request) -> bytes:
        """Return a line with the two fields that the documentation names."""
        return b'{"custom_id":"%b","body":%b}\n' % (request.custom_id.encode(), bytes(request.body))

    async def upload(self, client: openai.AsyncOpenAI, file: IO[bytes], name: str, fields: Mapping[str, Any]) -> Any:
        """Upload an input file by a form of its own."""
        return await client.post(
            "/files/upload",
            cast_to=httpx.Response,
            body={"purpose": self.purpose, "file_name": name, **fields},
            files={"file": (name, file)},
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )

    async def create(self, client: openai.AsyncOpenAI, order: BatchOrder) -> Any:
        """Create a batch; the reply is `{"job": batch}`."""
        body = {
            "input_file_id": order.input_file_id,
            "endpoint": order.endpoint,
            "completion_window": order.completion_window,
            **order.extra_fields,
        }
        return await client.post("/batches", cast_to=httpx.Response, body=body)

    async def list_page(self, client: openai.AsyncOpenAI, after: str | None) -> Any:
        """Request the list, an array of all batches without pages."""
        return await client.get("/batches", cast_to=httpx.Response)


ADAPTERS = {"openai": OpenAIAdapter(), "azure": AzureAdapter(), "together": TogetherAdapter()}
"""Adapters by the value of the field `batch_api`."""

# Hosts whose API has the shape of an adapter. https://docs.together.ai/docs/openai-api-compatibility
_HOSTS = {"api.together.xyz": "together", "api.together.ai": "together"}


def find_adapter(base_url: str, name: str | None = None) -> OpenAIAdapter:
    """Return the adapter for a server.

    Args:
        base_url: the server's address.
        name: the name of the adapter; `None` for the adapter of the host.

    Raises:
        InvalidSettingError: there is no adapter of the name.
    """
    if not name:
        host = urlsplit(base_url).hostname or ""
        name = "azure" if is_versioned_azure_address(base_url) else _HOSTS.get(host, "openai")
    if name not in ADAPTERS:
        known = ", ".join(f"`{known}`" for known in ADAPTERS)
        raise InvalidSettingError(f"`batch_api` has no shape {name!r}: the shapes are {known}.")
    return ADAPTERS[name]
