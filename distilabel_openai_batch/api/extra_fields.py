"""Extra fields of uploads and of creations, by which gateways choose a provider, a model or an account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilabel_openai_batch.api.secrets import is_secret_name

UPLOAD_FIELDS: Mapping[str, str] = {
    "file": "this package sets `file`",
    "purpose": "this package sets `purpose`",
    "expires_after": "set `input_expires_after`",
}
"""Fields of an upload that are no extra fields, and the reason or the setting."""

CREATION_FIELDS: Mapping[str, str] = {
    "input_file_id": "this package sets `input_file_id`",
    "endpoint": "this package sets `endpoint`",
    "completion_window": "set `completion_window`",
    "metadata": "set `batch_metadata`",
    "output_expires_after": "set `output_expires_after`",
}
"""Fields of a creation that are no extra fields, and the reason or the setting."""


@dataclass(frozen=True, slots=True)
class ExtraFields:
    """Extra fields of the calls that upload files and create batches.

    Attributes:
        upload: fields of each upload, by name.
        creation: fields of each creation, by name.
    """

    # distilabel's tracebacks show local variables → keep the secrets out of the `repr`.
    upload: Mapping[str, Any] = field(default_factory=dict, repr=False)
    creation: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> Iterator[str]:
        """Yield the values whose names mark secrets, at any depth."""
        yield from _secret_values(self.upload)
        yield from _secret_values(self.creation)


NO_EXTRA_FIELDS = ExtraFields()
"""Extra fields of a server without a gateway in front."""


def public_fields(value: Any) -> Any:
    """Return nested values without the entries whose names mark secrets."""
    if isinstance(value, Mapping):
        return {name: public_fields(part) for name, part in value.items() if not is_secret_name(str(name))}
    return [public_fields(part) for part in value] if isinstance(value, list | tuple) else value


def _secret_values(value: object, is_secret: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _secret_values(part, is_secret or is_secret_name(str(name)))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _secret_values(part, is_secret)
    elif is_secret and isinstance(value, str):
        yield value
