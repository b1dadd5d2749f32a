"""The versions that are tested: `make matrix` runs all sessions, `.venv-matrix/bin/nox -s NAME` one of them.

Interpreters are looked for on the path and where pyenv keeps them; one that is not there is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *sorted(map(str, PYENV.glob("3.*/bin")))])

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False

OPENAI = ("openai>=1,<2", "openai>=2,<3", "openai>=3,<4")
# The newest of instructor that distilabel can use, with the newest of openai that it can be installed beside.
INSTRUCTOR = ("instructor==1.17.0 openai==3.3.0", "instructor==1.16.0 openai==2.54.0")


def install(session: nox.Session, *more: str, group: str = "dev") -> None:
    """Installs the project as it stands, with what its tests need."""
    session.install("--editable", ".", "--group", group, *more)
    session.run("uv", "pip", "list", "--quiet", external=True)


def run_tests(session: nox.Session, *which: str) -> None:
    """Runs the tests, four at a time."""
    session.run("pytest", "-n", "4", "--dist", "worksteal", "-q", *which, *session.posargs)


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def newest(session: nox.Session) -> None:
    """The newest of everything."""
    install(session)
    run_tests(session)


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """The lowest of each direct dependency that `pyproject.toml` allows."""
    constraints = Path(session.create_tmp()) / "lowest.txt"
    compile_ = ["uv", "pip", "compile", "--quiet", "--no-header", "--python-version", "3.10", "--extra", "sandbox"]
    session.run(*compile_, "--resolution", "lowest-direct", "-o", str(constraints), "pyproject.toml", external=True)
    install(session, "--constraints", str(constraints), group="tests")
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("version", OPENAI)
def openai(session: nox.Session, version: str) -> None:
    """Each major version of openai."""
    install(session, version)
    run_tests(session)


@nox.session(python="3.11")
@nox.parametrize("versions", INSTRUCTOR)
def instructor(session: nox.Session, versions: str) -> None:
    """What `OpenAILLM` makes of the same answers, where it can make structured output at all."""
    install(session, *versions.split())
    run_tests(session, "tests/integration/test_structured_output.py", "-rs")


@nox.session(python="3.11")
def distilabel(session: nox.Session) -> None:
    """Distilabel's own tests of `OpenAILLM`, with `OpenAIBatchLLM` in its place."""
    install(session, "pip", "nest-asyncio")
    session.run("python", "tests/distilabel_own.py", *session.posargs)
