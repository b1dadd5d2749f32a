"""Files as the API keeps them: bytes on disk, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ApiError

# Files for batches are kept 30 days unless the upload says otherwise; `expires_after` may be an hour to 30 days.
BATCH_FILE_SECONDS = 2_592_000
_LEAST_EXPIRY_SECONDS = 3_600
# https://platform.openai.com/docs/api-reference/files/create
MOST_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True)
class StoredFile:
    """A file.

    Attributes:
        id: its id.
        path: where its bytes are.
        size: how many there are.
        created_at: when it was stored, in seconds since the epoch.
        filename: its name.
        purpose: such as `batch` or `batch_output`.
        expires_at: when it vanishes, in seconds since the epoch, or `None`.
        owner: whose it is.
    """

    id: str
    path: Path
    size: int
    created_at: float
    filename: str
    purpose: str
    expires_at: float | None
    owner: str

    def as_json(self) -> dict[str, Any]:
        """Returns the file object of the API."""
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
    """Returns what the API says of a file that it does not have."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def check_expiry(expires_after: Any, param: str) -> int | None:
    """Returns the seconds of an `expires_after`, or `None` if none was given.

    Args:
        expires_after: `{"anchor": "created_at", "seconds": …}`, or `None`.
        param: the name to complain about.

    Raises:
        ApiError: if it is not one that the API takes.
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
    if not _LEAST_EXPIRY_SECONDS <= seconds <= BATCH_FILE_SECONDS:
        message = (
            f"Invalid '{param}.seconds': expected an integer between {_LEAST_EXPIRY_SECONDS} and {BATCH_FILE_SECONDS}."
        )
        raise ApiError(400, message, param=f"{param}.seconds", code="invalid_value")
    return seconds


def check_upload(filename: str, purpose: str | None, size: int) -> None:
    """Checks an upload.

    Raises:
        ApiError: as the API refuses it.
    """
    if not purpose:
        raise ApiError(
            400, "Missing required parameter: 'purpose'.", param="purpose", code="missing_required_parameter"
        )
    if purpose == "batch" and not filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl")
    if size > MOST_FILE_BYTES:
        raise ApiError(
            413, f"Maximum content size limit ({MOST_FILE_BYTES}) exceeded ({size} bytes read)", type="server_error"
        )
