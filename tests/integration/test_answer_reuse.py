"""Answers of another scope are used for the same requests: renamed scripts, and other addresses of a server."""

from __future__ import annotations

import logging
import sys

import pytest
from typer.testing import CliRunner

from distilabel_openai_batch import OpenAIBatchLLM, UnmatchedAnswersError
from distilabel_openai_batch.cli.main import app
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.plugin import base
from tests.support.environment import load_as_new_process, route_host

pytestmark = pytest.mark.usefixtures("small_packs")

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in (0, 1, 2, 1)]
"""Four requests, two of which are equal."""


@pytest.fixture(autouse=True)
def old_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["old.py"])


def generate(questions=QUESTIONS, **fields):
    """Return the generations of a script."""
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(questions)]


def billed(sandbox) -> int:
    return sum(sandbox.books().billed.values())


@pytest.mark.parametrize(("way", "address"), [("field", "another"), ("command", "same")])
def test_a_renamed_script_takes_each_answer_once(sandbox, monkeypatch, way, address):
    """The question that the script makes twice takes two answers, and a third time is a new request."""
    answers = generate()
    monkeypatch.setattr(sys, "argv", ["new.py"])
    fields = {}
    if address == "another":
        fields["base_url"] = "http://sandbox.test/v1"
        route_host(monkeypatch, "sandbox.test", sandbox.base_url)
    if way == "field":
        fields["reuse_from"] = "old.py"
    else:
        options = ["--base-url", fields["base_url"]] if address == "another" else []
        result = CliRunner().invoke(app, ["adopt", "new.py", "--from", "old.py", *options])
        assert "takes the answers of old.py" in result.output
    assert generate([*QUESTIONS, QUESTIONS[1]], **fields)[:4] == answers
    assert billed(sandbox) == 5
    # The copies are the script's own by now.
    fields.pop("reuse_from", None)
    assert generate(**fields) == answers
    assert billed(sandbox) == 5


def test_a_job_in_progress_of_the_old_name_is_waited_for(sandbox, monkeypatch):
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    sandbox.configure(in_progress_seconds=0.1)
    monkeypatch.setattr(sys, "argv", ["new.py"])
    assert all(generate(reuse_from="old.py"))
    assert billed(sandbox) == 4


@pytest.mark.parametrize(("model", "address"), [("gpt-4o-mini", None), ("gpt-6-luna", "http://sandbox.test/v1")])
def test_a_renamed_script_is_warned_before_it_submits(sandbox, monkeypatch, caplog, model, address):
    """The body that a reasoning model gets is not the body that identifies the request."""
    route_host(monkeypatch, "sandbox.test", sandbox.base_url)
    generate(model=model, **({"base_url": address} if address else {}))
    monkeypatch.setattr(sys, "argv", ["new.py"])
    with caplog.at_level(logging.INFO):
        generate(model=model)
    lines = [line for line in caplog.messages if 'reuse_from="old.py' in line or "Submitted job" in line]
    source = f"'old.py at {address}/' --base-url {sandbox.base_url}/" if address else "old.py"
    assert f"adopt new.py --from {source}`" in lines[0]
    assert len(lines) == 2


def test_a_script_says_on_stderr_that_it_takes_answers_of_the_ledger(sandbox, capsys):
    """distilabel's loggers show no line of a script below a warning."""
    generate()
    assert "♻️" not in capsys.readouterr().err
    generate()
    assert capsys.readouterr().err == (
        "♻️ An earlier run answered 4 requests: the answers are reused, not billed again.\n"
    )


def test_a_changed_parameter_is_named_before_requests_are_submitted(sandbox, monkeypatch, caplog):
    """The answers of a Task are compared once, and never those of a script, whose calls need not be alike."""
    generate()
    scope = ScopeName("pipeline", "task", f"{sandbox.base_url}/")
    monkeypatch.setattr(base, "_scope_name", lambda run, base_url: scope)
    generate()
    with caplog.at_level(logging.INFO):
        generate([*QUESTIONS, [{"role": "user", "content": "A new row."}]])
        assert "no longer match" not in caplog.text
        generate(model="gpt-4o")
    lines = [line for line in caplog.messages if "no longer match" in line or "Submitted job" in line]
    change = 'model differs: "gpt-4o-mini" → "gpt-4o"'
    assert lines[1] == f"5 earlier answers of this Task no longer match ({change}); 4 requests will be submitted."
    assert len(lines) == 3


def test_a_run_without_a_user_ends_before_it_submits_again(sandbox, monkeypatch):
    generate()
    monkeypatch.setattr(sys, "argv", ["new.py"])
    with pytest.raises(UnmatchedAnswersError, match=r'reuse_from="old\.py"'):
        generate(on_unmatched="fail")
    assert billed(sandbox) == 4
    # The warned requests alone are refused: other scopes and other requests go on.
    assert all(generate([[{"role": "user", "content": "New."}]], on_unmatched="fail"))


def test_the_pause_comes_after_the_warning_and_before_the_submission(sandbox, monkeypatch, caplog):
    generate()
    monkeypatch.setattr(sys, "argv", ["new.py"])
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_PAUSE", "0.01")
    with caplog.at_level(logging.INFO):
        generate()
    names = ("Another scope", "Ctrl+C stops the run before anything is submitted", "Submitted job")
    assert [name for line in caplog.messages for name in names if name in line] == list(names)


def test_a_misspelt_name_is_an_error_before_anything_is_submitted(sandbox, monkeypatch):
    generate()
    monkeypatch.setattr(sys, "argv", ["new.py"])
    with pytest.raises(InvalidSettingError, match=r"Did you mean `old\.py`"):
        generate([[{"role": "user", "content": "New."}]], reuse_from="odl.py")
    with pytest.raises(InvalidSettingError, match="no effect"):
        generate(reuse_from="old.py", reuse_answers=False)
    assert billed(sandbox) == 4
