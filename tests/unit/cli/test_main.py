"""Tests of the application: version, help, errors, and the modules that importing the command line loads."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from distilabel_openai_batch import __version__
from distilabel_openai_batch.cli import app
from tests.support.commands import run_command

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def test_version_prints_the_version():
    assert run_command("--version").output == f"{__version__}\n"


def test_all_commands_are_registered():
    assert sorted(COMMANDS) == [
        "adopt",
        "cancel",
        "costs",
        "doctor",
        "estimate",
        "failures",
        "forget",
        "jobs",
        "listen",
        "report",
        "results",
        "serve",
        "show",
        "ui",
        "watch",
    ]


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_names_the_ledger_or_the_batch_api(arguments):
    result = run_command(*arguments)
    assert result.exit_code == 0
    assert re.search(r"Batch\s+API|ledger", result.output)


def test_an_error_is_a_sentence_on_stderr(tmp_path):
    result = run_command("jobs", "--ledger-dir", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("There is no ledger in")


def test_importing_the_command_line_loads_no_heavy_module():
    """distilabel and the SDK take seconds to import; tables and prices are needed by single commands only."""
    heavy = ["distilabel", "openai", "rich.table", "distilabel_openai_batch.display", "distilabel_openai_batch.pricing"]
    # Older releases of typer import `rich.table` → leave out what typer loads.
    program = (
        "import sys, typer; loaded_by_typer = set(sys.modules); import distilabel_openai_batch.cli;"
        f" print(*[name for name in {heavy} if name in sys.modules.keys() - loaded_by_typer])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split() == []
