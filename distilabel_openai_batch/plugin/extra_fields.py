"""Checks of the fields for gateways: metadata of batches, and extra fields of uploads and creations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS
from distilabel_openai_batch.api.extra_fields import CREATION_FIELDS, UPLOAD_FIELDS
from distilabel_openai_batch.plugin.bounds import find_not_finite

# https://platform.openai.com/docs/api-reference/batch/create#batch-create-metadata: 16 pairs. This package uses up to
# six: description, pipeline, key, scope, run and rows.
_CUSTOM_PAIRS = 10
_KEY_CHARACTERS = 64
_OWN_PREFIX = "distilabel_"

_OTHER_SETTINGS: Mapping[str, Mapping[str, str]] = {"upload_extra": UPLOAD_FIELDS, "batch_extra": CREATION_FIELDS}


def check_extra_fields(name: str, value: Mapping[str, Any] | None) -> None:
    """Check the value of `batch_metadata`, `upload_extra` or `batch_extra`.

    Args:
        name: name of the field.
        value: the value of the field; `None` for none.

    Raises:
        ValueError: a name is taken, or the API has no such metadata.
    """
    if value is None:
        return
    if name == "batch_metadata":
        _check_metadata(value)
        return
    for key, reason in _OTHER_SETTINGS[name].items():
        if key in value:
            raise ValueError(f"`{name}` cannot contain `{key}`: {reason}")
    if place := find_not_finite(value):
        raise ValueError(f"`{name}` contains a number that JSON does not have: {place}")


def _check_metadata(metadata: Mapping[str, str]) -> None:
    # `description` replaces a pair of this package.
    custom = metadata.keys() - {"description"}
    if len(custom) > _CUSTOM_PAIRS:
        raise ValueError(
            f"`batch_metadata` has {len(custom)} pairs. A batch holds 16, of which this package needs 6, so at most"
            f" {_CUSTOM_PAIRS} are left"
        )
    for key, text in metadata.items():
        if key.startswith(_OWN_PREFIX):
            raise ValueError(f"`batch_metadata` cannot contain {key!r}: names with `{_OWN_PREFIX}` are this package's")
        if not 0 < len(key) <= _KEY_CHARACTERS:
            raise ValueError(f"`batch_metadata` contains {key!r}; a name has 1 to {_KEY_CHARACTERS} characters")
        if len(text) > METADATA_VALUE_CHARACTERS:
            raise ValueError(
                f"The value of {key!r} in `batch_metadata` has {len(text):,} characters, and may have at most"
                f" {METADATA_VALUE_CHARACTERS}"
            )
