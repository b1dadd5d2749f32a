"""Docstrings of the public classes: made from the fields' descriptions, and readable for distilabel."""

from __future__ import annotations

import sys
import textwrap

import pytest
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.utils.docstring import parse_google_docstring
from pydantic import BaseModel, Field

import distilabel_openai_batch
from distilabel_openai_batch.plugin.public_class import package_fields, public_class

CLASSES = [
    model
    for model in (getattr(distilabel_openai_batch, name) for name in distilabel_openai_batch.__all__)
    if issubclass(model, BaseModel)
]

LONG = ", but no more than the disk holds" * 3


class Settings(BaseModel):
    """Settings of a test.

    {fields}

    Examples:
        None.
    """

    path: str = Field(description="Path of the file.")
    size: RuntimeParameter[int] = Field(default=50_000, description=f"Number of rows{LONG}.")
    name: RuntimeParameter[str] | None = Field(default=None, description="Name. `None`: the path.")


Settings.__module__ = "distilabel_openai_batch.settings"
# Python 3.13 strips the indentation of docstrings.
INDENTATION = "" if sys.version_info >= (3, 13) else "    "
SECTIONS = (
    textwrap.indent(
        """\
Settings of a test.

Attributes:
    path: Path of the file.

Runtime parameters:
    - `size`: Number of rows, but no more than the disk holds, but no more than the disk holds, but no more than the
        disk holds. Defaults to `50_000`.
    - `name`: Name. `None`: the path.

Examples:
    None.
""",
        INDENTATION,
    ).strip()
    + f"\n{INDENTATION}"
)


def meaning(text: str) -> str:
    """Return a description on one line, without its default."""
    return " ".join(text.split()).partition(" Defaults to `")[0]


@pytest.mark.parametrize("model", CLASSES, ids=lambda model: model.__name__)
def test_docstring_describes_each_field_exactly_once(model):
    docstring = parse_google_docstring(model)
    descriptions = docstring["attributes"] | docstring["runtime_parameters"]
    fields = dict(package_fields(model))

    assert not docstring["attributes"].keys() & docstring["runtime_parameters"].keys()
    assert all(field.description for field in fields.values())
    assert {name: meaning(text) for name, text in descriptions.items()} == {
        name: meaning(field.description) for name, field in fields.items()
    }


@pytest.mark.parametrize("model", CLASSES, ids=lambda model: model.__name__)
def test_docstring_keeps_its_other_sections(model):
    docstring = parse_google_docstring(model)

    assert docstring["short_description"].endswith(".")
    assert docstring["examples"]
    assert "{fields}" not in model.__doc__


def test_sections_of_a_docstring():
    """Constructor-only fields are attributes; long lines are wrapped; a default of `None` is not repeated."""
    assert public_class(Settings).__doc__ == SECTIONS


def test_public_class_belongs_to_the_package():
    assert public_class(Settings).__module__ == "distilabel_openai_batch"
