"""Servers that speak the Batch API in their own way: whole calls of `generate` against the sandbox, in each dialect."""

from __future__ import annotations

import functools

import pytest
from distilabel.models.llms import OpenAILLM

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.sandbox import BatchFault, Dialect, Fault, RequestFailure, Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.environment import load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
REFUSED = RequestFailure(contains="number 7.", message="No sevens.", endpoint="batch")

SPOKEN = {
    **{name: dialect for name, dialect in DIALECTS.items() if name != "azure"},
    "statuses in capitals": Dialect(upper_case_statuses=True),
    "a first status that nobody knows": Dialect(first_status="SCHEDULING"),
    "no counts": Dialect(counts="never"),
    "only what every server shows": Dialect(bare=True),
    "no endpoint": Dialect(null_endpoint=True),
    "no metadata": Dialect(metadata=False),
    "no list": Dialect(lists=False),
    "neither metadata nor a list": Dialect(metadata=False, lists=False),
    "both files": Dialect(both_files=True),
    "empty ids": Dialect(empty_ids=True),
    "UUIDs": Dialect(uuids=True),
    "bodies in strings": Dialect(string_bodies=True),
    "errors without a code": Dialect(failures="typed"),
    "files that are pending": Dialect(pending_seconds=0.05),
    "files without a status": Dialect(file_status=None),
    "windows of two weeks": Dialect(completion_windows=["336h"], bare=True),
}
pytestmark = pytest.mark.usefixtures("quick_retries")


def ask(dialect: Dialect, **fields):
    """As a run of its own."""
    window = dialect.completion_windows[0]
    llm = OpenAIBatchLLM(model="gpt-4o-mini", completion_window=window, **{"min_poll_interval": 0.02, **fields})
    return [output["generations"] for output in load_as_new_process(llm).generate(QUESTIONS)]


@functools.cache
def answers():
    """What the synchronous endpoint says in every dialect, but to the request that fails in batches."""
    llm = OpenAILLM(model="gpt-4o-mini")
    llm.load()
    generations = [output["generations"] for output in llm.generate(QUESTIONS)]
    generations[7] = [None]
    return generations


@pytest.mark.parametrize("name", SPOKEN)
def test_a_dialect_costs_no_row(sandbox, name, tmp_path):
    """Three jobs, a request that fails, a reply that is lost: each row has its answer, and none is bought twice.

    Run again it buys nothing, also on another machine, where the server can tell of the jobs.
    """
    dialect = SPOKEN[name]
    sandbox.reset(Settings(dialect=dialect, failures=[REFUSED]))
    if dialect.lists:
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))

    assert ask(dialect, max_requests_per_job=5) == answers()
    bought = sandbox.books().billed
    assert sorted(bought.values()) == [1] * 11

    # Another machine has another ledger.
    another = {"ledger_dir": str(tmp_path)} if dialect.lists and dialect.metadata else {}
    assert ask(dialect, **another) == answers()
    assert sandbox.books().billed == bought


@pytest.mark.parametrize("name", ["aibrix", "llama-stack", "together"])
def test_what_expires_is_used_in_each_dialect(sandbox, name):
    """Half of the job's answers are kept, and only the other half is asked again."""
    dialect = SPOKEN[name]
    sandbox.reset(Settings(dialect=dialect, failures=[REFUSED]))
    sandbox.add_fault(BatchFault(kind="expire"))

    assert ask(dialect) == answers()
    assert sorted(sandbox.books().billed.values()) == [1] * 11


def test_a_window_that_the_server_does_not_offer_is_an_error(sandbox):
    """In the server's words, before anything is bought."""
    sandbox.reset(Settings(dialect=Dialect(completion_windows=["336h"])))

    with pytest.raises(RunError, match="Supported values are: '336h'"):
        ask(Dialect())
    assert not sandbox.books().billed
