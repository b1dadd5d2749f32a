"""Settings of a sandbox: durations, limits, failing requests, dialect."""

from __future__ import annotations

import zlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .dialect import DIALECTS, Dialect


class RequestFailure(BaseModel):
    """Failure of every request whose body contains a given text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contains: str = Field(
        description="Substring of the request's body, serialised as JSON with sorted keys and without spaces."
    )
    status: int = Field(default=400, ge=400, le=599, description="HTTP status of the answer.")
    code: str | None = Field(default=None, description="`error.code` of the answer.")
    message: str = Field(
        default="The sandbox was told to fail this request.", description="`error.message` of the answer."
    )
    type: str = Field(default="invalid_request_error", description="`error.type` of the answer.")
    times: int | None = Field(default=None, ge=0, description="Number of requests that fail; `None` for all.")
    share: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the matching requests that fails, 0 to 1. The body decides, so a repeated request fails "
        "again.",
    )
    endpoint: Literal["batch", "sync", "both"] = Field(
        default="both", description="Way of sending that fails: in a batch, synchronously, or both."
    )
    retry_after: float | None = Field(
        default=None, description="Seconds in the header `Retry-After` of a synchronous answer; `None` for no header."
    )

    def matches(self, body: bytes) -> bool:
        """Return `True` if a request with this body fails: the body has the text and belongs to the share."""
        return self.contains.encode() in body and zlib.crc32(body) < self.share * 2**32


class Settings(BaseModel):
    """Settings of a sandbox. New durations also hold for the batches that are in progress."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    validating_seconds: float = Field(default=0.0, ge=0, description="Seconds that a batch spends in `validating`.")
    in_progress_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Seconds that a batch spends in `in_progress`; the requests are answered evenly over this time.",
    )
    finalizing_seconds: float = Field(default=0.0, ge=0, description="Seconds that a batch spends in `finalizing`.")
    cancelling_seconds: float = Field(default=0.0, ge=0, description="Seconds that a batch spends in `cancelling`.")
    seconds_per_request: float = Field(
        default=0.0, ge=0, description="Seconds added to `in_progress_seconds` for each request."
    )
    window_seconds: float = Field(
        default=86_400.0,
        ge=0,
        description="Seconds from the creation of a batch to its expiry; requests answered by then keep their results.",
    )
    max_requests: int = Field(default=50_000, ge=1, description="Maximum number of requests in one input file.")
    max_bytes: int = Field(default=209_715_200, ge=1, description="Maximum size of one input file, in bytes.")
    max_batches_per_hour: int = Field(
        default=2_000, ge=0, description="Maximum number of batches created in an hour; the next is refused with 429."
    )
    enqueued_token_limit: int | None = Field(
        default=None,
        ge=0,
        description="Maximum number of prompt tokens over all unfinished batches of one model; `None` for no limit.",
    )
    max_storage_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Maximum number of bytes over all files of an owner; an upload beyond is refused in OpenAI's "
        "words. `None` for no limit.",
    )
    max_files: int | None = Field(
        default=None,
        ge=0,
        description="Maximum number of files of an owner; an upload beyond is refused in Azure's words. `None` for no "
        "limit.",
    )
    api_keys: list[str] | None = Field(default=None, repr=False, description="Accepted API keys; `None` for any key.")
    required_headers: dict[str, str] = Field(
        default={}, repr=False, description="Headers that a gateway in front requires, with their values."
    )
    models: list[str] | None = Field(
        default=None,
        description="Names of the models that exist; `None` for every name that does not start with `no-such`.",
    )
    aliases: dict[str, str] = Field(
        default={},
        description="Names of deployments or of a gateway, and the model behind each, which decides the accepted "
        "parameters.",
    )
    reasoning_tokens: int = Field(
        default=300,
        ge=0,
        description="Number of tokens that a reasoning model takes for reasoning at medium effort. They are billed and "
        "count against the limit, so that a small limit leaves no text.",
    )
    answer_characters: int | None = Field(
        default=None, ge=1, description="Maximum number of characters of a chat's text; `None` for whole sentences."
    )
    answer_tokens: int = Field(
        default=0,
        ge=0,
        description="Least number of tokens of a chat's plain text. A lower limit of the request cuts the text, so "
        "that cut answers can be rehearsed.",
    )
    flex_models: list[str] | None = Field(
        default=None,
        description="Names of the models with the flex tier; `None` for o3, o4-mini, and GPT from 5 on without chat "
        "models.",
    )
    flex_refusals: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the flex calls that are refused with 429 for lack of capacity, evenly spread.",
    )
    flex_slots: int | None = Field(
        default=None,
        ge=0,
        description="Maximum number of flex calls in flight; another one is refused with 429. `None` for no limit.",
    )
    ignores_tiers: bool = Field(
        default=False, description="Answer flex calls with the default tier, as a gateway that drops the parameter."
    )
    sync_requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of synchronous calls in a minute, shown in the headers of each answer; another one "
        "is refused with 429. `None` for no limit.",
    )
    sync_seconds: float = Field(default=0.0, ge=0, description="Seconds until a synchronous call is answered.")
    prompt_cache: bool = Field(
        default=False,
        description="Bill long prompts as OpenAI does: tokens from the cache, and from GPT-5.6 on tokens written to "
        "the cache. The usage of an answer then depends on the prompts before.",
    )
    separate_keys: bool = Field(default=False, description="Show each API key only the files and batches it created.")
    shuffle: bool = Field(default=True, description="Write result lines in another order than the requests.")
    seed: int = Field(default=0, description="Seed of the order of result lines.")
    failures: list[RequestFailure] = Field(default=[], description="Requests that are answered with an error.")
    growing_output: bool = Field(
        default=False,
        description="Show an output file while a batch is in progress; the file grows as requests are answered.",
    )
    upload_visible_after_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Seconds from an upload until batches can use the file; until then a batch fails with "
        '"Cannot find file".',
    )
    dialect: Dialect = Field(
        default=Dialect(),
        description="Differences from OpenAI's server: an object with the fields of `Dialect`, or the name of a server "
        f"({', '.join(DIALECTS)}).",
    )

    @field_validator("dialect", mode="before")
    @classmethod
    def _find_by_name(cls, value: Any) -> Any:
        return DIALECTS.get(value, value) if isinstance(value, str) else value

    def resolve_model(self, model: str) -> str:
        """Return the name of the model behind a name, which may be an alias."""
        return self.aliases.get(model, model)

    def has_model(self, model: str) -> bool:
        """Return `True` if a model of this name exists."""
        return not model.startswith("no-such") if self.models is None else model in self.models
