"""What `mkdocs build` does besides: the configuration reference from the fields, and the examples as a page."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import annotated_types
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import distilabel_openai_batch

EXAMPLES = Path(__file__).parent.parent / "examples"
PACKAGE = distilabel_openai_batch.__name__

# `<!-- fields of CLASS -->`, `<!-- fields of CLASS besides CLASS -->`, `<!-- inherited fields of CLASS -->`
_MARKER = re.compile(r"<!-- (inherited )?fields of (\w+)(?: besides (\w+))? -->")
_EXAMPLE = re.compile(r"\| \[`(\w+)`\]")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the examples: their table, and each of them in Python and in YAML."""
    files.append(File.generated(config, "examples.md", content=examples_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts tables of fields where a page asks for them."""
    markdown = markdown.replace("](../examples/README.md)", "](examples.md)")
    return _MARKER.sub(lambda found: fields_table(found[2], found[3], inherited=bool(found[1])), markdown)


def examples_page() -> str:
    """The README of the examples, with the files that it names below it."""
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = _EXAMPLE.findall(readme)
    readme = re.sub(r"\]\((\w+)\.(?:py|yaml)\)", r"](#\1)", readme)
    readme = re.sub(r"\[([^]]+)\]\(\w+\.jsonl\)", r"\1", readme)
    return "\n".join([readme, *map(_example, names)])


def _example(name: str) -> str:
    parts = [f"## `{name}` {{ #{name} }}\n"]
    for label, suffix, language in (("Python", "py", "python"), ("YAML", "yaml", "yaml")):
        code = (EXAMPLES / f"{name}.{suffix}").read_text(encoding="utf-8").rstrip()
        block = f"```{language}\n{code}\n```"
        parts.append(f'=== "{label}"\n\n' + "".join(f"    {line}".rstrip() + "\n" for line in block.splitlines()))
    return "\n".join(parts)


def fields_table(name: str, besides: str | None = None, *, inherited: bool = False) -> str:
    """The fields of a class as a table.

    Args:
        name: the class, by its name in the package.
        besides: a class whose fields are left out where they are the same.
        inherited: whether those that distilabel describes are listed, instead of those of the package.
    """
    others = getattr(distilabel_openai_batch, besides).model_fields if besides else {}
    model = getattr(distilabel_openai_batch, name)
    rows = [
        f"| `{field_name}` | {shown_type(field.annotation, field.metadata)} | {_default(field)} | {field.description} |"
        for field_name, field in model.model_fields.items()
        if field.description
        and is_ours(model, field_name) is not inherited
        and not _is_same(field, others.get(field_name))
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def is_ours(model: type[BaseModel], field: str) -> bool:
    """Whether the package defines a field, or defines it anew."""
    owner = next(owner for owner in model.__mro__ if field in vars(owner).get("__annotations__", {}))
    return owner.__module__.startswith(PACKAGE)


def _is_same(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and (field.default, field.description) == (other.default, other.description)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`{}`" if field.default_factory is dict else "from the environment"
    if field.default is PydanticUndefined:
        return "required"
    return f"`{field.default:_}`" if type(field.default) is int else f"`{_quoted(field.default)}`"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def shown_type(annotation: object, metadata: typing.Sequence[object] = ()) -> str:
    """A type as a reader wants it: with its bounds, and without the `None` that each runtime parameter may be.

    Args:
        annotation: the type.
        metadata: what pydantic was told about it besides.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return shown_type(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(shown_type(part, metadata) for part in arguments if part is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{_quoted(value)}`" for value in arguments)
    if annotation is SecretStr:
        return "`str`, never shown"
    name = getattr(annotation, "__name__", str(annotation)) if origin is None else str(annotation)
    bounds = "".join(
        f" > {bound.gt}" if isinstance(bound, annotated_types.Gt) else f" ≥ {bound.ge}"
        for bound in metadata
        if isinstance(bound, annotated_types.Gt | annotated_types.Ge)
    )
    return f"`{name.replace('typing.', '').replace('_Task', 'Task')}`{bounds}"
