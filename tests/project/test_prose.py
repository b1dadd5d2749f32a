"""Rules of `tools/check_prose.py`, each with sources that keep and that break the rule."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

sys.path.insert(0, str(next(path for path in Path(__file__).parents if (path / "pyproject.toml").exists()) / "tools"))

import check_prose

SCRIPT = check_prose.__file__
LONG_BODY = "\n".join(["    x = 0"] * check_prose.FUNCTION_LINES)


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that writes sources by file name and returns the findings as lines."""
    monkeypatch.chdir(tmp_path)

    def write_and_check(sources: dict[str, str]) -> list[str]:
        for name, source in sources.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(source), encoding="utf-8")
        return [str(finding) for finding in check_prose.check([Path(name) for name in sources])]

    return write_and_check


@pytest.mark.parametrize(
    "opening",
    [
        "Return the job.",
        "Requests of a job.",
        "All requests of a job.",
        "Items.",
        "Whole file.",
        "One-way link.",
        "A job.",
    ],
)
def test_a_docstring_may_open_with_a_verb_or_a_noun(check, opening):
    assert check({"a.py": f'"""{opening}"""'}) == []


@pytest.mark.parametrize(
    ("docstring", "opening"),
    [
        ("What a job costs.", "What"),
        ("whether a job has ended", "whether"),
        ("One more has.", "One"),
        ("All that is left.", "All that"),
        ("So many requests.", "So"),
        ("It ends.", "It"),
        ("That's new.", "That"),
        ("\n    Who knows.\n    ", "Who"),
    ],
)
def test_a_docstring_that_opens_without_a_noun_is_reported(check, docstring, opening):
    assert check({"a.py": f'"""{docstring}"""'}) == [
        f"a.py:1: docstring opens with {opening!r}; open with a verb or the noun itself"
    ]


def test_docstrings_of_nested_definitions_are_checked(check):
    source = '''
        class Job:
            """Where requests go."""

            async def poll(self):
                """How a job is polled."""

                def inner():
                    """Why not."""
    '''
    assert [finding.split(";")[0] for finding in check({"a.py": source})] == [
        "a.py:3: docstring opens with 'Where'",
        "a.py:6: docstring opens with 'How'",
        "a.py:9: docstring opens with 'Why'",
    ]


def test_strings_that_are_no_docstrings_are_not_checked(check):
    assert check({"a.py": 'title = "What a job costs"\n"""What is no docstring."""\n'}) == []


def test_a_class_name_is_unique_within_the_package(check):
    sources = {
        "distilabel_openai_batch/api.py": "class Batch: ...\n",
        "distilabel_openai_batch/sandbox/batches.py": "class Book:\n    class Batch: ...\n",
        "tests/test_api.py": "class Batch: ...\n",
        "tests/test_book.py": "class Batch: ...\n",
    }
    place = "distilabel_openai_batch/sandbox/batches.py:2"
    assert check(sources) == [f"{place}: class `Batch` is also defined in distilabel_openai_batch/api.py:1"]


@pytest.mark.parametrize(
    "source",
    [
        "it = 1",
        "its: int = 1",
        "for them in []: ...",
        "with open('f') as it: ...",
        "squares = [those**2 for those in [1]]",
        "def f(what): ...",
        "def f(*, who=None): ...",
        "def f(*its): ...",
        "f = lambda it: 1",
        "async def _what(): ...",
        "class Who: ...",
        "job.its = 1",
        "import json as it",
        "try: ...\nexcept ValueError as it: ...",
        "if (it := 1): ...",
        "match 1:\n    case it: ...",
        "match [1]:\n    case [*them]: ...",
        "match {}:\n    case {**them}: ...",
    ],
)
def test_an_identifier_that_has_to_be_guessed_is_reported(check, source):
    assert [finding.split("` ")[1] for finding in check({"a.py": source})] == [
        "has to be guessed; name the object that it stands for"
    ]


def test_an_identifier_that_is_only_read_is_not_reported(check):
    assert check({"a.py": "item = module.its\nwhat_if = f(it, what=1)\n"}) == []


def test_a_function_may_have_as_many_lines_as_the_limit(check):
    body = LONG_BODY.replace("    x = 0\n", "", 1)
    assert check({"a.py": f'def f():\n    """Do nothing.\n\n    In three lines.\n    """\n{body}\n'}) == []


@pytest.mark.parametrize(("decorator", "line", "lines"), [("", 1, 51), ("@cache\n", 2, 52)])
def test_a_function_above_the_limit_is_reported(check, decorator, line, lines):
    assert check({"a.py": f"{decorator}async def f():\n{LONG_BODY}\n"}) == [
        f"a.py:{line}: function `f` has {lines} lines, more than 50; split, or say `# long: <reason>` above"
    ]


@pytest.mark.parametrize(
    "head",
    [
        "# long: a table\ndef f():",
        "def f():  # long: a table",
        "def f():  # noqa: D103  # long: a table",
        "# long: a table\n@cache\ndef f():",
        "@cache\n# long: a table\ndef f():",
    ],
)
def test_a_long_function_with_a_reason_is_not_reported(check, head):
    assert check({"a.py": f"{head}\n{LONG_BODY}\n"}) == []


@pytest.mark.parametrize("comment", ["# long:", "# a long table", "# long: a table\n\n"])
def test_a_comment_without_a_reason_beside_the_function_does_not_lift_the_limit(check, comment):
    assert len(check({"a.py": f"{comment}\ndef f():\n{LONG_BODY}\n"})) == 1


def test_a_class_above_the_limit_is_reported(check):
    body = "\n".join(["    x = 0"] * check_prose.CLASS_LINES)
    sources = {"a.py": f"class A:\n{body}\n", "b.py": f"# long: a table\nclass B:\n{body}\n"}
    assert check(sources) == ["a.py:1: class `A` has 351 lines, more than 350; split, or say `# long: <reason>` above"]


def test_exempt_paths_and_hidden_folders_are_skipped(check, monkeypatch):
    sources = {"old/a.py": "it = 1", "new/a.py": "it = 1", "new/.cache/a.py": "it = 1", "older.py": "it = 1"}
    monkeypatch.setattr(check_prose, "EXEMPT_PATHS", ("old", "older.py"))
    assert [finding.split(":")[0] for finding in check(sources)] == ["new/a.py"]


def test_the_command_prints_findings_and_exits_with_1(tmp_path):
    (tmp_path / "good.py").write_text('"""Numbers."""\n')
    (tmp_path / "bad.py").write_text("it = 1\n")
    (tmp_path / "notes.txt").write_text("it = 1\n")

    def run(*paths: str) -> tuple[int, str]:
        command = [sys.executable, SCRIPT, *paths]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert run("good.py") == (0, "")
    assert run(".") == (1, "bad.py:1: `it` has to be guessed; name the object that it stands for\n")
    assert run("missing.py") == (2, "")
