"""Dialects of servers that speak the Batch API: every difference from OpenAI's server, in one place.

The sandbox itself speaks only as OpenAI does. A dialect translates requests on the way in and replies on the way out.
"""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime, timezone
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope

from . import azure_calls
from .errors import ApiError

# OpenAI's error codes of validation, and Azure's codes for the same problems.
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#error-codes
_AZURE_CODES = {
    "invalid_url": "url_mismatch",
    "maximum_requests_exceeded": "too_many_tasks",
    "mismatched_model": "model_mismatch",
}
# Together's path of uploads, and OpenAI's path, which Together answers with an upload to a storage.
_TOGETHER_UPLOAD, _OPENAI_UPLOAD = "/v1/files/upload", "/v1/files"
# https://docs.together.ai/docs/inference/batch/manage: Together has six statuses.
_TOGETHER_STATUSES = {"finalizing": "in_progress", "cancelling": "in_progress"}
_FILE_IDS = ("output_file_id", "error_file_id")
# Fields that compatible servers leave out, besides most timestamps.
_OPTIONAL_FIELDS = ("usage", "model", "errors")


class Dialect(BaseModel):
    """Differences of a server from OpenAI's. With the defaults there is no difference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    azure: bool = Field(
        default=False,
        description="Expect paths under `/openai` with an `api-version` of Azure, or under `/openai/v1` without, the "
        "key in `api-key` or a token in `Authorization`, and endpoints without `/v1`, except `/v1/responses`; report "
        "Azure's errors.",
    )
    azure_versioned: bool = Field(
        default=False,
        description="With `azure`: announce the address with `/openai/v1/`, which needs no `api-version`.",
    )
    together: bool = Field(
        default=False,
        description="Speak Together's API: uploads to `/files/upload` with the purpose `batch-api` and a `file_name`, "
        'lines of `custom_id` and `body` alone, creations answered with `{"job": batch}`, a list that is a bare array, '
        "and batches with statuses in capitals, times in ISO 8601, and neither metadata nor counts.",
    )
    expires: bool = Field(default=True, description="End a batch when its completion window closes.")
    token_limit_at_once: bool = Field(
        default=False, description="Refuse a batch above the enqueued-token limit at its creation."
    )
    pending_seconds: float = Field(
        default=0.0,
        ge=0,
        description="Seconds for which a file is `pending` after its upload; until then no batch can use the file.",
    )
    refuses_missing_file: bool = Field(
        default=False,
        description="Refuse a batch at its creation if the input file is missing or not visible yet; without the field "
        "the batch fails.",
    )
    min_expiry_seconds: int = Field(default=3_600, description="Smallest expiry of a file, in seconds.")
    max_kept_files: int | None = Field(
        default=None,
        description="Number of files at which an upload without an expiry is refused; such files are kept. `None` for "
        "no limit: such files expire after 30 days.",
    )
    file_status: str | None = Field(
        default="processed", description="Status of a file that is no longer `pending`; `None` for no status."
    )
    first_status: str = Field(default="validating", description="Status shown instead of `validating`.")
    completed_status: str = Field(default="completed", description="Status shown instead of `completed`.")
    upper_case_statuses: bool = Field(default=False, description="Show statuses in capitals.")
    completion_windows: list[str] = Field(default=["24h"], description="Accepted completion windows.")
    shown_window: str | None = Field(
        default=None, description="Completion window shown on a batch; `None` for the one that the request named."
    )
    counts: Literal["early", "late", "never"] = Field(
        default="early",
        description="Time of the first `request_counts`: `early` at the creation, `late` at the end, or `never`.",
    )
    bare: bool = Field(default=False, description="Show only the fields that every compatible server shows.")
    endpoint_version: str = Field(
        default="/v1", description="Version in front of the endpoints that requests and creations name."
    )
    null_endpoint: bool = Field(default=False, description="Show no endpoint on a batch.")
    input_files: bool = Field(default=True, description="Show the input file of a batch.")
    metadata: bool = Field(default=True, description="Keep the metadata of a batch.")
    lists: bool = Field(default=True, description="Offer the list of batches.")
    lists_other_file_ids: bool = Field(
        default=False, description="Show ids of files that do not exist in the list of batches, as a gateway may do."
    )
    ranges: bool = Field(default=True, description="Honour the header `Range` of a download.")
    both_files: bool = Field(default=False, description="Make both result files; a file without lines is empty.")
    empty_ids: bool = Field(default=False, description='Show `""` instead of a null file id.')
    uuids: bool = Field(default=False, description="Use UUIDs without a prefix as ids.")
    envelope: bool = Field(
        default=False, description='Wrap each reply about files and batches: `{"code": 20000, "data": reply}`.'
    )
    custom_ids: bool = Field(default=True, description="Write the `custom_id` of a request into its result line.")
    string_bodies: bool = Field(default=False, description="Write the body of a result as JSON in a string.")
    failures: Literal["response", "inference_failed", "typed"] = Field(
        default="response",
        description="Shape of the result line of a failed request: `response` with status and body, "
        "`inference_failed` with an error of this code, `typed` with an error that has only a type and a message.",
    )

    def translate_scope(self, scope: Scope) -> Scope:
        """Return the ASGI scope of the request that OpenAI's server would have received.

        Raises:
            ApiError: the server has no such path, or no such version of its API.
        """
        path = scope.get("path", "")
        if not self.ranges and scope["type"] == "http":
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        if self.together and scope["type"] == "http" and scope["method"] == "POST":
            if path == _OPENAI_UPLOAD:
                raise self.no_such_path("POST", path)
            return {**scope, "path": _OPENAI_UPLOAD} if path == _TOGETHER_UPLOAD else scope
        if not self.azure or scope["type"] != "http" or path.startswith("/sandbox"):
            return scope
        return azure_calls.translate_call(scope)

    def no_such_path(self, method: str, path: str) -> ApiError:
        """Return the refusal of a call whose path the server does not have."""
        return azure_calls.not_found() if self.azure else ApiError(404, f"Invalid URL ({method} {path})")

    def bad_key(self, refusal: ApiError) -> ApiError:
        """Return the refusal of a call with a bad key, given OpenAI's refusal."""
        return azure_calls.denied() if self.azure else refusal

    def sync_body(self, status: int, body: dict[str, Any]) -> dict[str, Any]:
        """Translate the body of a synchronous answer."""
        return azure_calls.no_deployment().body() if self.azure and status == 404 else body

    def openai_purpose(self, purpose: str | None, has_file_name: bool = True) -> str | None:
        """Return OpenAI's name of the purpose of a file.

        Args:
            purpose: the purpose in a call; `None` for none.
            has_file_name: whether an upload has the field `file_name`.

        Raises:
            ApiError: 400, if the server would refuse the upload.
        """
        if not self.together:
            return purpose
        if not has_file_name or purpose == "batch":
            raise ApiError(400, "Missing required fields: purpose, file_name, file.", param="purpose")
        return "batch" if purpose == "batch-api" else purpose

    def created_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the reply to a creation, given the batch object."""
        return {"job": batch, "warning": ""} if self.together else batch

    def openai_endpoint(self, endpoint: Any) -> Any:
        """Return OpenAI's name of an endpoint; an endpoint that the server does not offer gives an unknown name."""
        if self.endpoint_version != "/v1" and isinstance(endpoint, str):
            is_known = endpoint.startswith(f"{self.endpoint_version}/")
            return f"/v1{endpoint.removeprefix(self.endpoint_version)}" if is_known else f"unknown {endpoint}"
        has_version = not self.azure or endpoint == "/v1/responses"
        return endpoint if has_version or not isinstance(endpoint, str) else f"/v1{endpoint}"

    def new_id(self, prefix: str) -> str:
        """Return a new, unique id."""
        return str(uuid.uuid4()) if self.uuids else prefix + secrets.token_hex(12)

    def file_object(self, file: dict[str, Any], age: float) -> dict[str, Any]:
        """Translate a file object.

        Args:
            file: file object as OpenAI shows the file.
            age: seconds since the file was stored.
        """
        if self.together:
            fields = {name: file[name] for name in ("id", "object", "bytes", "created_at", "filename")}
            purpose = "batch-api" if file["purpose"] == "batch" else file["purpose"]
            return fields | {"purpose": purpose, "file_type": "jsonl", "line_count": 0, "processed": True}
        status = "pending" if age < self.pending_seconds else self.file_status
        if status is None:
            return {name: value for name, value in file.items() if name not in ("status", "status_details")}
        return file | {"status": status}

    def batch_object(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Translate a batch object."""
        if self.together:
            return _together_batch(batch)
        shown = dict(batch)
        if shown["status"] == "validating":
            shown["status"] = self.first_status
        if shown["status"] == "completed":
            shown["status"] = self.completed_status
        if self.counts == "never" or (self.counts == "late" and not any(shown[name] for name in _FILE_IDS)):
            shown["request_counts"] = None
        if self.shown_window is not None:
            shown["completion_window"] = self.shown_window
        if self.upper_case_statuses:
            shown["status"] = shown["status"].upper()
        if self.azure:
            shown["endpoint"] = shown["endpoint"].removeprefix("/v1")
            shown["errors"] = _replace_codes(shown["errors"], _AZURE_CODES)
        if self.null_endpoint:
            shown["endpoint"] = None
        if not self.input_files:
            shown["input_file_id"] = None
        if not self.metadata:
            shown["metadata"] = None
        if self.empty_ids:
            shown |= {name: shown[name] or "" for name in _FILE_IDS}
        return drop_optional_fields(shown) if self.bare else shown

    def listed_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch object as the list shows it."""
        if not self.lists_other_file_ids:
            return batch
        names = ("input_file_id", *_FILE_IDS)
        return batch | {name: f"raw-{batch[name]}" for name in names if batch[name]}

    def reply(self, content: dict[str, Any]) -> dict[str, Any]:
        """Translate the content of a successful reply about files or batches."""
        return {"code": 20_000, "message": "OK", "status": True, "data": content} if self.envelope else content

    def result_line(self, line: dict[str, Any]) -> dict[str, Any]:
        """Translate a line of a result file."""
        line = line if self.custom_ids else {name: value for name, value in line.items() if name != "custom_id"}
        response = line["response"]
        error = line["error"] if response is None else response["body"].get("error")
        if error and self.failures == "inference_failed":
            return line | {"response": None, "error": {"code": "inference_failed", "message": error["message"]}}
        if error and self.failures == "typed":
            status = f"Error code: {response['status_code']} - " if response else ""
            typed = {"type": "request_failed", "message": f"{status}{error['message']}"}
            return {name: value for name, value in line.items() if name in ("id", "custom_id")} | {"error": typed}
        if response and self.string_bodies:
            return line | {"response": response | {"body": orjson.dumps(response["body"]).decode()}}
        return line


def _together_batch(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch object of Together; see https://docs.together.ai/reference/batch-get for its fields."""
    counts = batch["request_counts"]
    done = counts["completed"] + counts["failed"]
    errors = batch["errors"]["data"] if batch["errors"] else []
    return {
        "id": batch["id"],
        "user_id": "user_sandbox",
        "input_file_id": batch["input_file_id"],
        "status": _TOGETHER_STATUSES.get(batch["status"], batch["status"]).upper(),
        "job_deadline": _iso_time(batch["expires_at"]),
        "created_at": _iso_time(batch["created_at"]),
        "endpoint": batch["endpoint"],
        "progress": 100 * done // counts["total"] if counts["total"] else 0,
        "model_id": batch["model"],
        "output_file_id": batch["output_file_id"],
        "error_file_id": batch["error_file_id"],
        "error": "; ".join(error["message"] for error in errors),
        "completed_at": _iso_time(batch["completed_at"]),
    }


def _iso_time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def drop_optional_fields(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch object with only the fields that every compatible server shows."""
    return {
        name: value
        for name, value in batch.items()
        if name == "created_at" or not (name in _OPTIONAL_FIELDS or name.endswith("_at"))
    }


def _replace_codes(errors: dict[str, Any] | None, codes: dict[str, str]) -> dict[str, Any] | None:
    if errors is None:
        return None
    return errors | {"data": [error | {"code": codes.get(error["code"], error["code"])} for error in errors["data"]]}


_AZURE = Dialect(
    azure=True,
    expires=False,
    token_limit_at_once=True,
    pending_seconds=0.2,
    min_expiry_seconds=1_209_600,
    max_kept_files=500,
    null_endpoint=True,
    both_files=True,
    empty_ids=True,
)

DIALECTS = {
    "openai": Dialect(),
    # https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
    "azure": _AZURE,
    # https://learn.microsoft.com/azure/foundry/openai/latest
    "azure-v1": _AZURE.model_copy(update={"azure_versioned": True}),
    # Observed on release 0.8.0.
    "aibrix": Dialect(
        file_status="uploaded",
        first_status="scheduling",
        shown_window="1d",
        counts="late",
        uuids=True,
        failures="inference_failed",
    ),
    # Observed on release 0.7.3.
    "llama-stack": Dialect(file_status=None, bare=True, both_files=True, string_bodies=True, failures="typed"),
    "together": Dialect(together=True, metadata=False),
    # https://docs.bigmodel.cn/cn/guide/tools/batch
    "zhipu": Dialect(endpoint_version="/v4"),
}
"""Dialects by the name of the server."""
