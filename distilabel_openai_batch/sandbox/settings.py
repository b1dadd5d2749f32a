"""What can be set on a sandbox: how long things take, what its limits are, which requests fail."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .dialect import DIALECTS, Dialect


class RequestFailure(BaseModel):
    """Answers every request whose body contains a text with an error.

    Attributes:
        contains: a substring of the request's body, serialised as JSON with sorted keys and without spaces.
        status: the HTTP status that the request is answered with.
        code: the `error.code` of the answer.
        message: the `error.message` of the answer.
        type: the `error.type` of the answer.
        times: how many requests fail before this failure is used up; `None` for all of them.
        share: of the requests that contain the text, the share that fails: the same ones whenever they are asked.
        endpoint: whether requests fail in batches, when sent synchronously, or both.
        retry_after: seconds to put into `Retry-After` of a synchronous answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contains: str
    status: int = Field(default=400, ge=400, le=599)
    code: str | None = None
    message: str = "The sandbox was told to fail this request."
    type: str = "invalid_request_error"
    times: int | None = Field(default=None, ge=0)
    share: float = Field(default=1.0, ge=0, le=1)
    endpoint: Literal["batch", "sync", "both"] = "both"
    retry_after: float | None = None

    def concerns(self, body: bytes) -> bool:
        """Returns whether a request with this body is one of those that fail."""
        return self.contains.encode() in body and zlib.crc32(body) < self.share * 2**32


class Settings(BaseModel):
    """How a sandbox behaves. Changing the times of a running one moves the batches under way too.

    Attributes:
        validating_seconds: time a batch spends in `validating`.
        in_progress_seconds: time a batch spends in `in_progress`; its requests are answered evenly over it.
        finalizing_seconds: time a batch spends in `finalizing`.
        cancelling_seconds: time a batch spends in `cancelling`.
        seconds_per_request: added to `in_progress_seconds` for each request.
        window_seconds: a batch expires this long after its creation, with what was answered by then.
        max_requests: requests in one input file.
        max_bytes: bytes of one input file.
        max_batches_per_hour: batches created in an hour; one more is answered with 429.
        enqueued_token_limit: prompt tokens over all unfinished batches of one model; `None` for no limit.
        api_keys: the keys that are accepted; `None` for any.
        models: the models that exist; `None` for all but those whose name starts with `no-such`.
        separate_keys: whether each key sees its own files and batches only.
        shuffle: whether result lines stand in another order than the requests.
        seed: decides that order.
        failures: requests that are answered with an error.
        growing_output: whether a batch under way shows an output file, which grows as its requests are answered.
        upload_visible_after_seconds: a batch created sooner after the upload fails with "Cannot find file".
        dialect: in what it differs from OpenAI's server, by itself or by the name of who speaks it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validating_seconds: float = Field(default=0.0, ge=0)
    in_progress_seconds: float = Field(default=0.0, ge=0)
    finalizing_seconds: float = Field(default=0.0, ge=0)
    cancelling_seconds: float = Field(default=0.0, ge=0)
    seconds_per_request: float = Field(default=0.0, ge=0)
    window_seconds: float = Field(default=86_400.0, ge=0)
    max_requests: int = Field(default=50_000, ge=1)
    max_bytes: int = Field(default=209_715_200, ge=1)
    max_batches_per_hour: int = Field(default=2_000, ge=0)
    enqueued_token_limit: int | None = Field(default=None, ge=0)
    api_keys: list[str] | None = Field(default=None, repr=False)
    models: list[str] | None = None
    separate_keys: bool = False
    shuffle: bool = True
    seed: int = 0
    failures: list[RequestFailure] = []
    growing_output: bool = False
    upload_visible_after_seconds: float = Field(default=0.0, ge=0)
    dialect: Dialect = Dialect()

    @field_validator("dialect", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return DIALECTS.get(value, value) if isinstance(value, str) else value

    def knows(self, model: str) -> bool:
        """Returns whether a model of this name exists."""
        return not model.startswith("no-such") if self.models is None else model in self.models
