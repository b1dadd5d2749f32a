"""Tests of `display.command_lines`."""

from __future__ import annotations

import logging
import shlex

import pytest

from distilabel_openai_batch.cli.arguments import is_selected
from distilabel_openai_batch.display.command_lines import command_line
from distilabel_openai_batch.display.event_log import EventLog
from distilabel_openai_batch.ledger.states import ScopeName


@pytest.mark.parametrize("scope", [("sky", ""), ("my pipeline", "generate"), ("script.py", ""), ("it's; ls", "$HOME")])
def test_a_shell_passes_the_scope_and_the_ledger_of_a_line_on(scope):
    """A submission, a Task of a pipeline, a script, and names with characters of the shell."""
    name = ScopeName(*scope, "https://a/v1/")
    log = EventLog(logging.getLogger("test.command_lines"), name.label, ledger_dir="/my ledger")
    program, command, label, *options = shlex.split(log.command_line("failures"))
    assert (program, command, options) == ("distilabel-openai-batch", "failures", ["--ledger-dir", "/my ledger"])
    assert is_selected(name, label, None)


def test_options_without_a_value_are_left_out():
    line = command_line("adopt", "a", from_="b at c", base_url=None)
    assert line == "distilabel-openai-batch adopt a --from 'b at c'"
    assert command_line("jobs") == "distilabel-openai-batch jobs"
