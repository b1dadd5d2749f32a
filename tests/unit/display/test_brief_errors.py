"""Tests of the output of uncaught errors: the message alone for errors of this package."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distilabel_openai_batch import AuthenticationError
from distilabel_openai_batch.display import brief_errors
from distilabel_openai_batch.errors import InternalError
from distilabel_openai_batch.hooks.stopping import interruption


class Shell:
    """Stand-in for a shell of IPython, with the two methods that rich replaces."""

    def __init__(self) -> None:
        self.shown: list[object] = []
        self.showtraceback = self.shown.append
        self._showtraceback = None

    def _showtraceback(self, error_type, error, lines):
        self.shown.append(lines)


@pytest.fixture
def uncaught(monkeypatch, capsys):
    """Return a function that returns the output of an uncaught error, and whether the earlier hook got the error."""
    monkeypatch.delenv(brief_errors.TRACEBACK_ENV_NAME, raising=False)

    def show(error: BaseException) -> tuple[str, bool]:
        passed: list[object] = []
        brief_errors._print_uncaught(lambda *arguments: passed.append(arguments), type(error), error, None)
        return capsys.readouterr().err, bool(passed)

    return show


@pytest.mark.parametrize("error", [AuthenticationError("The key is wrong."), InternalError("No memory.")])
def test_error_of_the_package_is_its_message(uncaught, error):
    output, passed = uncaught(error)
    assert output == (f"{type(error).__name__}: {error}\n(DISTILABEL_OPENAI_BATCH_TRACEBACK=1 shows the traceback.)\n")
    assert not passed


def test_interruption_is_its_message(uncaught):
    output, passed = uncaught(interruption(2))
    assert output == "KeyboardInterrupt: The pipeline was stopped before its dataset was complete.\n"
    assert not passed


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt()], ids=["of a Task", "outside a pipeline"])
def test_other_error_is_shown_as_before(uncaught, error):
    assert uncaught(error) == ("", True)


@pytest.mark.parametrize(("value", "is_shown"), [("1", True), ("0", False), ("", False)])
def test_variable_shows_the_traceback(uncaught, monkeypatch, value, is_shown):
    monkeypatch.setenv(brief_errors.TRACEBACK_ENV_NAME, value)
    assert uncaught(AuthenticationError("The key is wrong."))[1] is is_shown


def test_shell_shows_the_message_alone():
    shell, error = Shell(), AuthenticationError("The key is wrong.")
    brief_errors._show_in_shell(shell, shell.showtraceback, (type(error), error, None))
    assert shell.shown[0][0] == "AuthenticationError: The key is wrong."

    other = (KeyError, KeyError("x"), None)
    brief_errors._show_in_shell(shell, shell.showtraceback, other)
    assert shell.shown[1] == other


@pytest.mark.parametrize("argument", ["max_job=3", "max_jobs=0"], ids=["a misspelt name", "a wrong value"])
def test_script_prints_a_wrong_argument_without_the_others(argument):
    """distilabel's traceback prints the arguments, with the API key."""
    program = f"from distilabel_openai_batch import OpenAIBatchLLM; OpenAIBatchLLM(model='m', api_key='sk', {argument})"
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], check=False, stderr=subprocess.PIPE, text=True
    )
    assert ran.returncode == 1
    assert "max_jobs" in ran.stderr
    assert "sk" not in ran.stderr
    assert len(ran.stderr.splitlines()) <= 4, ran.stderr
