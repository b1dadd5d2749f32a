"""Build the generated parts of the documentation: tables of fields, the install lines' address, the page of examples.

Run `python docs/building.py` to rewrite the tables from `Field(description=…)`, and the address from `pyproject.toml`.
A test fails while they differ. `mkdocs build` loads this file as a hook and adds the page of examples.
"""

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
from distilabel_openai_batch import sandbox

ROOT = Path(__file__).parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BENCHMARKS = ROOT / "benchmarks"
EXAMPLES = ROOT / "examples"
PACKAGE = distilabel_openai_batch.__name__

# A table stands between two comments. The first one is `fields of CLASS`, `fields of CLASS besides CLASS` or
# `inherited fields of CLASS`, the second one `end of fields`.
_TABLE = re.compile(
    r"(?P<start><!-- (?P<inherited>inherited )?fields of (?P<name>\w+)(?: besides (?P<besides>\w+))? -->\n)"
    r"(?P<table>.*?)(?P<end><!-- end of fields -->)",
    re.DOTALL,
)
_HOMEPAGE = re.compile('^Homepage = "(.+)"$', re.MULTILINE)
_INSTALL_ADDRESS = re.compile(r"git\+https://[^'\s]+")
_EXAMPLE = re.compile(r"\| \[`(\w+)`\]")
# Files outside `docs/` have another address on the site.
_ADDRESSES = {
    "](../examples/README.md)": "](examples.md)",
    "](../benchmarks/results.md": "](benchmarks.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose sources stand outside `docs/`: the examples, and the figures of the benchmarks."""
    files.append(File.generated(config, "examples.md", content=examples_page()))
    files.append(File.generated(config, "benchmarks.md", abs_src_path=str(BENCHMARKS / "results.md")))
    for plot in sorted((BENCHMARKS / "plots").glob("*.svg")):
        files.append(File.generated(config, f"plots/{plot.name}", abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the addresses of files that the site has elsewhere, and leave out the comments around tables."""
    for address, on_site in _ADDRESSES.items():
        markdown = markdown.replace(address, on_site)
    return _TABLE.sub(lambda found: found["table"], markdown)


def with_generated_parts(markdown: str) -> str:
    """Return a page with each table of fields as the classes define the fields now, and the repository's address."""

    def table(found: re.Match[str]) -> str:
        fields = fields_table(found["name"], found["besides"], inherited=bool(found["inherited"]))
        return f"{found['start']}\n{fields}\n\n{found['end']}"

    homepage = _HOMEPAGE.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
    return _INSTALL_ADDRESS.sub(f"git+{homepage}", _TABLE.sub(table, markdown))


def examples_page() -> str:
    """Return the README of the examples, followed by the files that its table lists."""
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
    """Return the fields of a class as a Markdown table.

    Args:
        name: The class's name in the package.
        besides: Name of a class whose fields are left out where default and description are equal.
        inherited: Whether the table lists the fields that distilabel describes, instead of the package's own.
    """
    others = getattr(distilabel_openai_batch, besides).model_fields if besides else {}
    model = getattr(distilabel_openai_batch if name in distilabel_openai_batch.__all__ else sandbox, name)
    rows = [
        f"| `{field_name}` | {shown_type(field.annotation, field.metadata)} | {_default(field)} | {field.description} |"
        for field_name, field in model.model_fields.items()
        if field.description
        and is_ours(model, field_name) is not inherited
        and not _is_same(field, others.get(field_name))
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def is_ours(model: type[BaseModel], field: str) -> bool:
    """Return whether a class of the package defines or redefines a field."""
    owner = next(owner for owner in model.__mro__ if field in vars(owner).get("__annotations__", {}))
    return owner.__module__.startswith(PACKAGE)


def _is_same(field: FieldInfo, other: FieldInfo | None) -> bool:
    return other is not None and (field.default, field.description) == (other.default, other.description)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "`{}`" if field.default_factory is dict else "from the environment"
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "`{}`"
    return f"`{field.default:_}`" if type(field.default) is int else f"`{_quoted(field.default)}`"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def shown_type(annotation: object, metadata: typing.Sequence[object] = ()) -> str:
    """Return a type for readers: with bounds, and without the `None` that each runtime parameter allows.

    Args:
        annotation: The type.
        metadata: The constraints that pydantic keeps beside the type.
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
    return f"`{re.sub(r'[a-z_.]+[.](?=[A-Z])', '', name).replace('_Task', 'Task')}`{bounds}"


def main() -> None:
    """Rewrite the generated parts of each page."""
    for page in PAGES:
        page.write_text(with_generated_parts(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
