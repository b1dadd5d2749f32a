"""Tests of the selection of scopes, jobs and batches, and of `--param`."""

from __future__ import annotations

from contextlib import closing

import pytest
import typer

from distilabel_openai_batch.cli.arguments import (
    complete_batch,
    complete_scope,
    is_selected,
    open_reader,
    parse_parameters,
    poll,
    select_answers,
    select_batches,
    select_jobs,
    select_one_scope,
    select_scopes,
)
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.states import ScopeName
from tests.support.commands import add_scope
from tests.support.ledgers import LedgerWriter

ONE, TWO = "http://one/v1/", "http://two/v1/"
GENERATE = ScopeName("preferences", "generate", ONE)
BATCH = f"batch_{1:024x}"


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Write a default ledger with two scopes at one server, one of them with a job, and a script at another server."""
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.job(writer.scope("preferences", "generate", ONE), 0.0, requests=3)
    add_scope(tmp_path, "preferences", "judge", ONE)
    add_scope(tmp_path, "asking.py", "", TWO)
    return open_reader(None)


@pytest.mark.parametrize("scope", [None, "preferences/generate", "preferences", "preferences//generate"])
@pytest.mark.parametrize("base_url", [None, "http://one/v1", ONE])
def test_a_scope_is_selected_by_label_pipeline_or_full_name_and_server(scope, base_url):
    assert is_selected(GENERATE, scope, base_url)
    assert not is_selected(GENERATE, scope, TWO)
    assert not is_selected(GENERATE, "generate", base_url)


def test_select_scopes_returns_all_scopes_without_a_name(reader):
    assert len(select_scopes(reader, None, None)) == len(reader.scopes()) == 3
    assert [entry.name.task for entry in select_scopes(reader, "preferences", ONE)] == ["generate", "judge"]


def test_select_scopes_lists_the_scopes_if_none_matches(reader):
    with pytest.raises(OpenAIBatchError, match=r"no scope judge at http://one/v1/\. Its scopes: asking\.py, "):
        select_scopes(reader, "judge", ONE)


def test_select_jobs_returns_no_jobs_for_a_scope_without_jobs(reader):
    assert [job.batch_id for job in select_jobs(reader, "preferences", None)] == [BATCH]
    assert select_jobs(reader, "preferences/judge", None) == []
    with pytest.raises(OpenAIBatchError, match="has no scope other"):
        select_jobs(reader, "other", None)


def test_select_one_scope_requires_a_single_match(reader):
    assert select_one_scope(reader, "preferences/generate", None).name == GENERATE
    assert select_one_scope(reader, None, TWO).name.pipeline == "asking.py"
    with pytest.raises(OpenAIBatchError, match="Several scopes match"):
        select_one_scope(reader, "preferences", None)
    with pytest.raises(OpenAIBatchError, match=r"^The ledger has no scope at http://three/v1\.$"):
        select_one_scope(reader, None, "http://three/v1")


def test_select_answers_returns_all_tasks_of_a_pipeline_at_one_server(reader):
    assert [entry.name.label for entry in select_answers(reader, "preferences/generate", None)] == [
        "preferences/generate"
    ]
    labels = [entry.name.label for entry in select_answers(reader, "preferences", ONE)]
    assert sorted(labels) == ["preferences/generate", "preferences/judge"]
    with pytest.raises(OpenAIBatchError, match="Several scopes match"):
        select_answers(reader, None, None)


def test_select_one_scope_prefers_a_script_to_the_pipeline_of_the_same_name(reader):
    add_scope(reader.path.parent, "preferences", "", ONE)
    assert select_one_scope(reader, "preferences", None).name.task == ""


def test_select_batches_returns_each_job_once_or_lists_the_batches(reader):
    jobs = reader.jobs()
    assert select_batches(jobs, [BATCH, BATCH]) == jobs
    with pytest.raises(OpenAIBatchError, match=f"has no batch batch_9, and no such scope. Its batches: {BATCH}"):
        select_batches(jobs, ["batch_9"])


def test_completion_returns_matching_names_and_none_without_a_ledger(reader, monkeypatch):
    assert complete_scope("pref") == ["preferences/generate", "preferences/judge"]
    assert complete_batch("batch_0") == [BATCH]
    assert complete_batch("x") == []
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", "/nowhere")
    assert complete_scope("") == complete_batch("") == []


def test_poll_returns_collected_jobs_unchanged_without_a_call(reader):
    jobs = reader.jobs()
    assert poll(jobs) == jobs


def test_parse_parameters_nests_values_by_step():
    assert parse_parameters(["a.llm.budget=5", "a.llm.url=x=y", "b.size=1"]) == {
        "a": {"llm": {"budget": "5", "url": "x=y"}},
        "b": {"size": "1"},
    }


@pytest.mark.parametrize("assignment", ["budget=5", "a.budget"])
def test_parse_parameters_rejects_a_text_without_step_or_value(assignment):
    with pytest.raises(typer.BadParameter, match=r"is not `step\.parameter=value`"):
        parse_parameters([assignment])
