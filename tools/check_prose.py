"""Check names, docstring openings and lengths that ruff has no rule for.

Usage: `python tools/check_prose.py [PATH ...]` from the root of the repository. Without paths, `DEFAULT_PATHS` are
checked. Each finding is printed as `path:line: message`. Exit status: 0 without findings, 1 with findings, 2 if a path
does not exist.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PATHS = ("distilabel_openai_batch", "tests", "benchmarks", "examples", "docs", "tools", "noxfile.py")

# Files and folders that are not checked, relative to the root of the repository.
EXEMPT_PATHS: tuple[str, ...] = ()

# Class names are unique within this package; classes of tests and benchmarks may share a name.
PACKAGE = "distilabel_openai_batch"

# Words in the place of the noun or the verb that a docstring should open with. Phrases are listed where their first
# word alone may open a docstring ("All requests of a job").
OPENINGS = (
    *("it", "its", "itself", "he", "his", "she", "her", "they", "their", "them", "you", "your", "we", "our", "i", "my"),
    *("this", "that", "these", "those", "such", "one", "the one", "the ones", "each one", "every one"),
    *("what", "whatever", "who", "whoever", "whom", "whose", "which", "whichever", "whether"),
    *("where", "wherever", "when", "whenever", "why", "how", "however"),
    *("everything", "everybody", "everyone", "nothing", "nobody", "no one"),
    *("something", "somebody", "someone", "anything", "anybody", "anyone"),
    *("so", "as", "also", "and", "or", "but", "nor", "neither"),
    *("all that", "all who", "all of it", "all of them"),
)

# Names that have to be guessed, without their leading and trailing underscores.
IDENTIFIERS = ("it", "its", "them", "those", "what", "who")

# Longest function and longest class, from the first decorator to the last line, without the docstring. A comment
# `# long: <reason>` on the line of `def` or `class`, or on the line above, lifts the limit.
FUNCTION_LINES = 50
CLASS_LINES = 350

_OPENING = re.compile(rf"(?:{'|'.join(OPENINGS)})(?![\w-])", re.IGNORECASE)
_LONG = re.compile(r"#\s*long:\s*\S")


@dataclass(frozen=True, order=True)
class Finding:
    """A place in a file that breaks a rule.

    Attributes:
        path: file as named on the command line, or below a folder named there.
        line: line number, from 1.
        message: broken rule and the text that breaks the rule.
    """

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        """Format the finding so that editors can open the place."""
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Source:
    """A parsed file.

    Attributes:
        path: file as named on the command line, or below a folder named there.
        tree: syntax tree.
        comments: comments by line number.
    """

    path: Path
    tree: ast.Module
    comments: dict[int, str]

    def finding(self, line: int, message: str) -> Finding:
        """Return a finding at `line` of this file."""
        return Finding(self.path.as_posix(), line, message)


def read(path: Path) -> Source:
    """Parse a file.

    Raises:
        SyntaxError: the file is not valid Python.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, str(path))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    return Source(path, tree, comments)


def check_openings(source: Source) -> Iterator[Finding]:
    """Yield a finding for each docstring that opens with a word of `OPENINGS`."""
    for node in ast.walk(source.tree):
        docstring = _docstring(node)
        opening = docstring and _OPENING.match(str(docstring.value).lstrip())
        if docstring and opening:
            message = f"docstring opens with {opening[0]!r}; open with a verb or the noun itself"
            yield source.finding(docstring.lineno, message)


def check_identifiers(source: Source) -> Iterator[Finding]:
    """Yield a finding for each name of `IDENTIFIERS` that the file assigns or defines."""
    for node in ast.walk(source.tree):
        for name in _defined_names(node):
            if name.strip("_").lower() in IDENTIFIERS:
                line = getattr(node, "lineno", 1)
                yield source.finding(line, f"`{name}` has to be guessed; name the object that it stands for")


def check_lengths(source: Source) -> Iterator[Finding]:
    """Yield a finding for each function or class above its limit that no comment `# long: <reason>` excuses."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kind, limit = "function", FUNCTION_LINES
        elif isinstance(node, ast.ClassDef):
            kind, limit = "class", CLASS_LINES
        else:
            continue
        start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        length = _last_line(node) - start + 1
        docstring = _docstring(node)
        if docstring:
            length -= _last_line(docstring) - docstring.lineno + 1
        excused = any(_LONG.search(source.comments.get(line, "")) for line in (node.lineno, node.lineno - 1, start - 1))
        if length > limit and not excused:
            yield source.finding(
                node.lineno,
                f"{kind} `{node.name}` has {length} lines, more than {limit}; split, or say `# long: <reason>` above",
            )


def check_class_names(sources: Iterable[Source]) -> Iterator[Finding]:
    """Yield a finding for each class of `PACKAGE` whose name an earlier class of the package has, nested or not."""
    places: dict[str, str] = {}
    for source in sources:
        if PACKAGE not in source.path.parts:
            continue
        classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
        for node in sorted(classes, key=lambda node: node.lineno):
            if node.name in places:
                yield source.finding(node.lineno, f"class `{node.name}` is also defined in {places[node.name]}")
            else:
                places[node.name] = f"{source.path.as_posix()}:{node.lineno}"


def python_files(paths: Iterable[Path]) -> list[Path]:
    """Return the Python files among and below `paths`, sorted; hidden folders and `EXEMPT_PATHS` are left out."""
    exempt = [Path(path) for path in EXEMPT_PATHS]
    found: set[Path] = set()
    for path in paths:
        found.update([path] if path.is_file() else path.rglob("*.py"))
    return sorted(
        path
        for path in found
        if not any(path.is_relative_to(skipped) for skipped in exempt)
        and not any(part.startswith(".") and part != ".." for part in path.parts)
    )


def check(paths: Iterable[Path]) -> list[Finding]:
    """Return the findings of every rule in the files among and below `paths`, sorted by place."""
    sources = [read(path) for path in python_files(paths)]
    findings: list[Finding] = []
    for source in sources:
        findings += [*check_openings(source), *check_identifiers(source), *check_lengths(source)]
    return sorted([*findings, *check_class_names(sources)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings in the files that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(description="Check names, docstring openings and lengths.")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders; default: all sources")
    paths: list[Path] = parser.parse_args(arguments).paths or [Path(path) for path in DEFAULT_PATHS]
    for path in paths:
        if not path.exists():
            parser.error(f"{path} does not exist")
    findings = check(paths)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def _docstring(node: ast.AST) -> ast.Constant | None:
    """Return the docstring of a module, a class or a function, with its place; `None` without a docstring."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value
    return None


def _last_line(node: ast.stmt | ast.expr) -> int:
    """Return the number of the line on which `node` ends."""
    return node.end_lineno or node.lineno


def _defined_names(node: ast.AST) -> list[str]:
    """Return the names that `node` assigns or defines, without the names of its children."""
    names: list[str | None] = []
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
            names = [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            names = [name]
        case ast.alias(asname=name) | ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            names = [name]
        case ast.MatchMapping(rest=name):
            names = [name]
    return [name for name in names if name]


if __name__ == "__main__":
    sys.exit(main())
