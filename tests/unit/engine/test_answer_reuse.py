"""Names of the scopes whose answers a run takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.engine.answer_reuse import name_source, open_reuse, select_source
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName

OWN = ScopeName("pipeline", "task", "https://api.example.com/v1/")
OLD = replace(OWN, pipeline="old")
OLD_AT_SANDBOX = replace(OLD, base_url="http://127.0.0.1:8123/v1/")
OWN_AT_HTTP = replace(OWN, base_url="http://api.example.com/v1/")
SECOND_TASK = replace(OLD, task="second")
SCRIPT = ScopeName("old/task", "", OWN.base_url)
OTHERS = [OLD, OLD_AT_SANDBOX, OWN_AT_HTTP, SECOND_TASK]


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("old/task", OLD),
        ("old//task", OLD),
        ("old", OLD),
        ("old/task at http://localhost:8123/v1", OLD_AT_SANDBOX),
        ("old/second", SECOND_TASK),
        ("pipeline/task", OWN_AT_HTTP),
    ],
    ids=[
        "label",
        "full label",
        "pipeline with the Task",
        "address",
        "another Task",
        "own name elsewhere",
    ],
)
def test_a_name_selects_a_scope(name, scope):
    assert select_source(OTHERS, name, OWN) == scope


def test_the_only_task_of_a_pipeline_has_the_name_of_the_pipeline():
    assert select_source([SECOND_TASK], "old", OWN) == SECOND_TASK


def test_the_name_of_the_own_scope_selects_nothing():
    """The user has given the pipeline its old name back."""
    assert select_source([OLD], "pipeline/task", OWN) is None


@pytest.mark.parametrize(
    ("others", "name", "message"),
    [
        (OTHERS, "odl/task", "no such scope. Did you mean `old/task`"),
        ([OLD_AT_SANDBOX, replace(OLD, base_url="http://elsewhere/v1/")], "old/task", "Choose one: .*elsewhere"),
        ([OLD, SCRIPT], "old/task", 'Choose one: "old//task at .*", "old/task// at'),
    ],
    ids=["misspelt", "two servers", "a Task and a script"],
)
def test_a_name_of_no_scope_or_of_several_is_an_error(others, name, message):
    """Answers of a rehearsal at the sandbox never fill up the answers of another server."""
    with pytest.raises(InvalidSettingError, match=message):
        select_source(others, name, OWN)


@pytest.mark.parametrize("others", [OTHERS, [OLD, SCRIPT], [OLD_AT_SANDBOX, replace(OLD, base_url="http://x/v1/")]])
def test_each_scope_has_a_name_that_selects_it(others):
    for scope in others:
        assert select_source(others, name_source(others, scope, OWN.base_url), OWN) == scope


def test_sources_are_the_field_then_the_command_then_former_names(tmp_path):
    """A former name is the name that earlier releases gave to all notebooks."""
    kernel = ScopeName("ipykernel_launcher.py", "", OWN.base_url)
    for scope in (kernel, replace(kernel, base_url="http://elsewhere/v1/"), OLD, SECOND_TASK):
        with_row = Ledger(tmp_path, scope)
        with_row.submissions.keep_rows([], None)
        with_row.close()
    ledger = Ledger(tmp_path, OWN)
    ledger.other_scopes.add_source(SECOND_TASK)
    names = dict(ledger.other_scopes.list_names())
    reuse = open_reuse(ledger, "old/task", ("ipykernel_launcher.py",), Observer())
    assert [names[scope_id] for scope_id in reuse.source_ids] == [OLD, SECOND_TASK, kernel]
    assert open_reuse(ledger, None, (), Observer()).needs_digests
    ledger.close()
