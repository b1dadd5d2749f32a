"""Decorator of the classes that users hold: their module's name, and the fields in their docstring."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import TypeVar

from distilabel.mixins.runtime_parameters import _is_runtime_parameter
from pydantic import BaseModel
from pydantic.fields import FieldInfo

T = TypeVar("T", bound=type[BaseModel])

_PACKAGE = __name__.partition(".")[0]
_PLACEHOLDER = re.compile(r"^( *)\{fields\}$", re.MULTILINE)
_LINE_LENGTH = 120


def public_class(model: T) -> T:
    """Make a class public: YAML finds the class in the package, and the docstring describes each field.

    YAML files name the module of a class, so `__module__` is the package wherever the class is defined. The line
    `{fields}` of the docstring becomes the sections `Attributes` (fields that only the constructor sets) and
    `Runtime parameters`, as distilabel reads them, so that a field's meaning stands in its `description` alone.

    Args:
        model: a class with fields, whose docstring may have a line `{fields}`.
    """
    model.__module__ = _PACKAGE
    if model.__doc__:
        model.__doc__ = _PLACEHOLDER.sub(lambda line: textwrap.indent(_sections(model), line[1]), model.__doc__)
    return model


def package_fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the name and the definition of each field that this package defines, or defines again."""
    for name, field in model.model_fields.items():
        owner = next(owner for owner in model.__mro__ if name in vars(owner).get("__annotations__", {}))
        if owner.__module__.partition(".")[0] == _PACKAGE:
            yield name, field


def _sections(model: type[BaseModel]) -> str:
    attributes, runtime_parameters = [], []
    for name, field in package_fields(model):
        if _is_runtime_parameter(field)[0]:
            runtime_parameters.append(_entry(f"- `{name}`", field))
        else:
            attributes.append(_entry(name, field))
    sections = {"Attributes": attributes, "Runtime parameters": runtime_parameters}
    return "\n\n".join("\n".join([f"{title}:", *entries]) for title, entries in sections.items() if entries)


def _entry(name: str, field: FieldInfo) -> str:
    text = f"{name}: {field.description}{_default(field)}"
    return textwrap.fill(
        text,
        _LINE_LENGTH - 4,
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _default(field: FieldInfo) -> str:
    """Return a sentence about a default; none where the description explains the missing value."""
    if field.is_required() or field.default_factory or field.default is None:
        return ""
    value = f"{field.default:_}" if type(field.default) is int else repr(field.default).replace("'", '"')
    return f" Defaults to `{value}`."
