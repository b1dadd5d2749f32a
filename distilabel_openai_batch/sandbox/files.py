"""File objects of the API, and the checks of an upload."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ApiError

# https://platform.openai.com/docs/api-reference/files/create: files for batches expire after 30 days by default,
# `expires_after` takes an hour to 30 days, and a file holds at most 512 MB.
BATCH_FILE_SECONDS = 2_592_000
MIN_EXPIRY_SECONDS = 3_600
_MAX_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class StoredFile:
    """File of an organization; the content is on disk.

    Attributes:
        id: id of the file.
        path: path of the content.
        size: size of the content, in bytes.
        created_at: time of the upload, in seconds since the epoch.
        filename: name that the upload gave.
        purpose: purpose, such as `batch` or `batch_output`.
        expires_at: time of expiry, in seconds since the epoch; `None` for never.
        owner: owner that `Organization.authenticate` returned.
        extra_fields: fields of the upload that OpenAI's API does not have.
    """

    id: str
    path: Path
    size: int
    created_at: float
    filename: str
    purpose: str
    expires_at: float | None
    owner: str
    extra_fields: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the file object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created_at),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def no_such_file(file_id: str) -> ApiError:
    """Return the error for an unknown file id."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def check_expiry(expires_after: Any, param: str, minimum: int = MIN_EXPIRY_SECONDS) -> int | None:
    """Return the seconds of an `expires_after` object, or `None` without one.

    Args:
        expires_after: `{"anchor": "created_at", "seconds": …}`, or `None`.
        param: name of the parameter, for the message.
        minimum: smallest number of seconds.

    Raises:
        ApiError: if the object is malformed or the seconds are out of bounds.
    """
    if expires_after is None:
        return None
    if not isinstance(expires_after, dict) or expires_after.get("anchor") != "created_at":
        message = f"Invalid value for '{param}.anchor': supported values are: 'created_at'."
        raise ApiError(400, message, param=f"{param}.anchor", code="invalid_value")
    try:
        seconds = int(expires_after["seconds"])
    except (KeyError, TypeError, ValueError):
        seconds = 0
    if not minimum <= seconds <= BATCH_FILE_SECONDS:
        message = f"Invalid '{param}.seconds': expected an integer between {minimum} and {BATCH_FILE_SECONDS}."
        raise ApiError(400, message, param=f"{param}.seconds", code="invalid_value")
    return seconds


def check_upload(filename: str, purpose: str | None, size: int) -> None:
    """Check an upload.

    Args:
        filename: name of the file.
        purpose: purpose of the file; `None` or "" if the upload gave none.
        size: size in bytes.

    Raises:
        ApiError: if the purpose is missing, the name is not `.jsonl`, or the file is too large.
    """
    if not purpose:
        raise ApiError(
            400, "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
        )
    if purpose == "batch" and not filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
    if size > _MAX_FILE_BYTES:
        raise ApiError(
            413, f"Maximum content size limit ({_MAX_FILE_BYTES}) exceeded ({size} bytes read)", type="server_error"
        )


def check_storage(sizes: list[int], size: int, max_bytes: int | None, max_files: int | None) -> None:
    """Check that an owner may store one more file.

    Args:
        sizes: sizes of the owner's files, in bytes.
        size: size of the new file, in bytes.
        max_bytes: maximum number of bytes over all files; `None` for no limit.
        max_files: maximum number of files; `None` for no limit.

    Raises:
        ApiError: 400, if a limit is exceeded. The words for the bytes are OpenAI's, those for the number Azure's:
            https://help.openai.com/en/articles/8724843-file-storage-quota-errors-for-api-users,
            https://github.com/Azure/azure-sdk-for-java/issues/47401
    """
    if max_bytes is not None and sum(sizes) + size > max_bytes:
        message = (
            f"You have exceeded your file storage quota. Projects are limited to {max_bytes / 1e9:g} GB of files. "
            "Please reduce the file size or contact support."
        )
        raise ApiError(400, message)
    if max_files is not None and len(sizes) >= max_files:
        message = f"The quota for files without expiry is reached. The maximum is {max_files}."
        raise ApiError(400, message, code="quotaExceeded")
