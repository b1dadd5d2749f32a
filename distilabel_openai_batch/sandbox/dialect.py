"""How servers that speak the Batch API differ from OpenAI's, in one place: what is asked of them, and what they reply.

The sandbox thinks in OpenAI's words. A dialect translates requests on their way in and replies on their way out.
"""

from __future__ import annotations

import re
import secrets
import uuid
from typing import Any, Literal
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Scope

# Azure's words for what OpenAI's validation finds.
# https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#error-codes
_AZURE_CODES = {
    "invalid_url": "url_mismatch",
    "maximum_requests_exceeded": "too_many_tasks",
    "mismatched_model": "model_mismatch",
}
# Azure wants the deployment in the path of a synchronous call, and nowhere else.
_DEPLOYMENT = re.compile(r"^/deployments/[^/]+(?=/(chat/completions|completions|embeddings)$)")
_FILES = ("output_file_id", "error_file_id")
# What servers that are merely compatible leave out, beside most moments.
_OPTIONAL = ("usage", "model", "errors")


class Dialect(BaseModel):
    """In what a server differs from OpenAI's. The defaults are in nothing.

    Attributes:
        azure: the paths are under `/openai` and want an `api-version`, the key is in `api-key`, endpoints have no
            `/v1`, and validation has codes of its own.
        expires: whether a batch ends when its window closes.
        token_limit_at_once: a batch above the limit of enqueued tokens is refused at its creation.
        pending_seconds: how long a file is `pending` after its upload; no batch can be made of it before.
        file_status: what is said of a file after that; `None` for nothing.
        first_status: what a batch shows instead of `validating`.
        upper_case_statuses: statuses are in capitals.
        completion_windows: those that are taken.
        shown_window: how the window is shown; `None` for as it was given.
        counts: whether there are `request_counts`: `early` for from the start, `late` for once a batch has ended.
        bare: batches show only what every server shows.
        null_endpoint: batches do not show their endpoint.
        metadata: whether batches keep their metadata.
        lists: whether batches can be listed.
        both_files: a batch that has ended has both files, and one without lines is empty.
        empty_ids: `""` stands for a file that there is not.
        uuids: ids are UUIDs, without a prefix.
        string_bodies: the body of a result is JSON in a string.
        failures: how the line of a request that failed looks: `response` with status and body, `inference_failed` with
            neither, `typed` with an error of a type and a message alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    azure: bool = False
    expires: bool = True
    token_limit_at_once: bool = False
    pending_seconds: float = Field(default=0.0, ge=0)
    file_status: str | None = "processed"
    first_status: str = "validating"
    upper_case_statuses: bool = False
    completion_windows: list[str] = ["24h"]
    shown_window: str | None = None
    counts: Literal["early", "late", "never"] = "early"
    bare: bool = False
    null_endpoint: bool = False
    metadata: bool = True
    lists: bool = True
    both_files: bool = False
    empty_ids: bool = False
    uuids: bool = False
    string_bodies: bool = False
    failures: Literal["response", "inference_failed", "typed"] = "response"

    def scope(self, scope: Scope) -> Scope:
        """Returns a request as OpenAI's API would have been sent it."""
        path = scope.get("path", "")
        if not self.azure or scope["type"] != "http" or path.startswith("/sandbox"):
            return scope
        if not path.startswith("/openai/") or b"api-version" not in parse_qs(scope["query_string"]):
            return {**scope, "path": f"/nowhere{path}"}
        known = "/v1" + _DEPLOYMENT.sub("", path.removeprefix("/openai"))
        headers = [
            (b"authorization", b"Bearer " + value) if name == b"api-key" else (name, value)
            for name, value in scope["headers"]
            if name != b"authorization"
        ]
        return {**scope, "path": known, "headers": headers}

    def endpoint(self, endpoint: Any) -> Any:
        """Returns OpenAI's name of an endpoint; one that the server does not know has none."""
        return f"/v1{endpoint}" if self.azure and isinstance(endpoint, str) else endpoint

    def new_id(self, prefix: str) -> str:
        """Returns an id that nothing else has."""
        return str(uuid.uuid4()) if self.uuids else prefix + secrets.token_hex(12)

    def file(self, file: dict[str, Any], age: float) -> dict[str, Any]:
        """Returns a file object as the server shows it.

        Args:
            file: as OpenAI shows it.
            age: seconds since it was stored.
        """
        status = "pending" if age < self.pending_seconds else self.file_status
        if status is None:
            return {name: value for name, value in file.items() if name not in ("status", "status_details")}
        return file | {"status": status}

    def batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns a batch object as the server shows it."""
        shown = dict(batch)
        if shown["status"] == "validating":
            shown["status"] = self.first_status
        if self.counts == "never" or (self.counts == "late" and not any(shown[name] for name in _FILES)):
            shown["request_counts"] = None
        if self.shown_window is not None:
            shown["completion_window"] = self.shown_window
        if self.upper_case_statuses:
            shown["status"] = shown["status"].upper()
        if self.azure:
            shown["endpoint"] = shown["endpoint"].removeprefix("/v1")
            shown["errors"] = _with_codes(shown["errors"], _AZURE_CODES)
        if self.null_endpoint:
            shown["endpoint"] = None
        if not self.metadata:
            shown["metadata"] = None
        if self.empty_ids:
            shown |= {name: shown[name] or "" for name in _FILES}
        return bare(shown) if self.bare else shown

    def line(self, line: dict[str, Any]) -> dict[str, Any]:
        """Returns a line of the results as the server writes it."""
        response = line["response"]
        error = line["error"] if response is None else response["body"].get("error")
        if error and self.failures == "inference_failed":
            return line | {"response": None, "error": {"code": "inference_failed", "message": error["message"]}}
        if error and self.failures == "typed":
            status = f"Error code: {response['status_code']} - " if response else ""
            typed = {"type": "request_failed", "message": f"{status}{error['message']}"}
            return {"id": line["id"], "custom_id": line["custom_id"], "error": typed}
        if response and self.string_bodies:
            return line | {"response": response | {"body": orjson.dumps(response["body"]).decode()}}
        return line


def bare(batch: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a batch object every compatible server shows."""
    return {
        name: value
        for name, value in batch.items()
        if name == "created_at" or not (name in _OPTIONAL or name.endswith("_at"))
    }


def _with_codes(errors: dict[str, Any] | None, codes: dict[str, str]) -> dict[str, Any] | None:
    if errors is None:
        return None
    return errors | {"data": [error | {"code": codes.get(error["code"], error["code"])} for error in errors["data"]]}


DIALECTS = {
    "openai": Dialect(),
    # https://learn.microsoft.com/azure/ai-services/openai/how-to/batch
    "azure": Dialect(
        azure=True,
        expires=False,
        token_limit_at_once=True,
        pending_seconds=0.2,
        null_endpoint=True,
        both_files=True,
        empty_ids=True,
    ),
    # As release 0.8.0 was seen to speak.
    "aibrix": Dialect(
        file_status="uploaded",
        first_status="scheduling",
        shown_window="1d",
        counts="late",
        uuids=True,
        failures="inference_failed",
    ),
    # As release 0.7.3 was seen to speak.
    "llama-stack": Dialect(file_status=None, bare=True, both_files=True, string_bodies=True, failures="typed"),
    # https://docs.together.ai/docs/batch-inference
    "together": Dialect(upper_case_statuses=True, counts="never"),
}
"""Dialects by the name of who speaks them."""
