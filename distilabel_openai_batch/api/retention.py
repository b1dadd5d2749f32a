"""Retention of files on the server: the seconds after which the server deletes input and result files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHORTEST_SECONDS = 3_600
LONGEST_SECONDS = 2_592_000
"""Bounds of an expiry: an hour and 30 days. https://platform.openai.com/docs/api-reference/files/create"""


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention of a job's files.

    Attributes:
        input_seconds: seconds from the upload of an input file to its deletion; `None` for the server's default.
        output_seconds: seconds from the end of a batch to the deletion of its result files; `None` for the default.
    """

    input_seconds: int | None = None
    output_seconds: int | None = None

    def upload_parameters(self) -> dict[str, Any]:
        """Return the parameters of an upload that say the expiry; none without an expiry."""
        return _parameters("expires_after", self.input_seconds)

    def creation_parameters(self) -> dict[str, Any]:
        """Return the parameters of a batch's creation that say the expiry; none without an expiry."""
        return _parameters("output_expires_after", self.output_seconds)


DEFAULT_RETENTION = Retention()
"""Retention by the server's defaults."""


def _parameters(name: str, seconds: int | None) -> dict[str, Any]:
    return {} if seconds is None else {name: {"anchor": "created_at", "seconds": seconds}}
