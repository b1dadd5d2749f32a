"""Tests with other versions of Python and of the dependencies.

`make matrix` runs all sessions, `.venv-matrix/bin/nox -s NAME` runs one of them. Interpreters are found on the path and
in the folder of pyenv; sessions without an interpreter are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYENV_VERSIONS = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # The tests start many processes, and each would compile the modules anew.
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *sorted(map(str, PYENV_VERSIONS.glob("3.*/bin")))])

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False

# `newest` has the newest release of openai 3.
OPENAI_VERSIONS = ("openai>=1,<2", "openai>=2,<3")
# Newest versions of instructor that distilabel supports, each with the newest openai that pip allows beside instructor.
INSTRUCTOR_VERSIONS = ("instructor==1.17.0 openai==3.3.0", "instructor==1.16.0 openai==2.54.0")


def install(session: nox.Session, *arguments: str, group: str = "dev") -> None:
    """Install the project in editable mode with a dependency group and further pip arguments, and list the versions."""
    session.install("--editable", ".", "--group", group, *arguments)
    session.run("uv", "pip", "list", "--quiet", external=True)


def run_tests(session: nox.Session, *arguments: str) -> None:
    """Run the tests in four processes, with further arguments of pytest."""
    session.run("pytest", "-n", "4", "--dist", "worksteal", "-q", *arguments, *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of every dependency."""
    install(session)
    run_tests(session)


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each direct dependency that `pyproject.toml` allows."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--python-version", "3.10", "--extra", "sandbox"]
    session.run(*command, "--resolution", "lowest-direct", "-o", str(constraints), "pyproject.toml", external=True)
    install(session, "--constraints", str(constraints), group="tests")
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("version", OPENAI_VERSIONS)
def openai(session: nox.Session, version: str) -> None:
    """Run the tests with each major version of openai before the newest."""
    install(session, version)
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("versions", INSTRUCTOR_VERSIONS)
def instructor(session: nox.Session, versions: str) -> None:
    """Compare structured output with `OpenAILLM`, which needs instructor for structured output."""
    install(session, *versions.split())
    run_tests(session, "tests/integration/test_structured_output.py", "-rs")


@nox.session(python="3.11")
def distilabel(session: nox.Session) -> None:
    """Run distilabel's own tests of `OpenAILLM` on `OpenAIBatchLLM`."""
    install(session, "pip", "nest-asyncio")
    session.run("python", "tests/distilabel_own.py", *session.posargs)
