"""Dialects of the Batch API: whole calls of `generate` against the sandbox in each dialect."""

from __future__ import annotations

import functools

import pytest
from distilabel.models.llms import OpenAILLM, TogetherLLM

from distilabel_openai_batch import OpenAIBatchLLM, RequestsFailedError, RunError
from distilabel_openai_batch.sandbox import BatchFault, Dialect, Fault, RequestFailure, Settings
from distilabel_openai_batch.sandbox.dialect import DIALECTS
from tests.support.environment import load_as_new_process

PROMPTS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
FAILURE = RequestFailure(contains="number 7.", message="No sevens.", endpoint="batch")

# The servers' dialects, and each difference from OpenAI alone.
DIALECTS_BY_NAME = {
    **{name: dialect for name, dialect in DIALECTS.items() if not dialect.azure},
    "upper-case statuses": Dialect(upper_case_statuses=True),
    "unknown first status": Dialect(first_status="SCHEDULING"),
    "final status `succeeded`": Dialect(completed_status="succeeded"),
    "final status `done`, common fields only": Dialect(completed_status="DONE", bare=True),
    "unknown final status": Dialect(completed_status="sealed"),
    "unknown final status without counts": Dialect(completed_status="sealed", counts="never"),
    "unknown final status without times": Dialect(completed_status="sealed", bare=True),
    "no counts": Dialect(counts="never"),
    "common fields only": Dialect(bare=True),
    "no endpoint": Dialect(null_endpoint=True),
    "no metadata": Dialect(metadata=False),
    "no list": Dialect(lists=False),
    "list with other file ids": Dialect(lists_other_file_ids=True),
    "no input file": Dialect(input_files=False),
    "neither metadata nor list": Dialect(metadata=False, lists=False),
    "both files": Dialect(both_files=True),
    "empty ids": Dialect(empty_ids=True),
    "UUIDs": Dialect(uuids=True),
    "bodies as strings": Dialect(string_bodies=True),
    "errors without code": Dialect(failures="typed"),
    "replies in an envelope": Dialect(envelope=True),
    "pending files": Dialect(pending_seconds=0.05),
    "files without status": Dialect(file_status=None),
    "windows of two weeks": Dialect(completion_windows=["336h"], bare=True),
}
pytestmark = pytest.mark.usefixtures("quick_retries")


def generate(dialect: Dialect, **fields):
    """Generate in a run of its own, with the dialect's completion window."""
    window = dialect.completion_windows[0]
    shape = {"batch_api": "together"} if dialect.together else {}
    if dialect.endpoint_version != "/v1":
        shape = {"endpoint_path": f"{dialect.endpoint_version}/chat/completions"}
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini", completion_window=window, **{"min_poll_interval": 0.02, **shape, **fields}
    )
    return [output["generations"] for output in load_as_new_process(llm).generate(PROMPTS)]


@functools.cache
def expected_generations():
    """Return the synchronous answers, equal in every dialect, with `None` for the request that fails in batches."""
    llm = OpenAILLM(model="gpt-4o-mini")
    llm.load()
    generations = [output["generations"] for output in llm.generate(PROMPTS)]
    generations[7] = [None]
    return generations


@pytest.mark.parametrize("name", DIALECTS_BY_NAME)
def test_every_row_is_answered_and_billed_once_in_a_dialect(sandbox, name, tmp_path):
    """Three jobs, a failing request and a lost reply: each row has its answer, and no request is billed twice.

    A second run submits nothing, and neither does a run on another machine if the server lists batches with metadata.
    """
    dialect = DIALECTS_BY_NAME[name]
    sandbox.reset(Settings(dialect=dialect, failures=[FAILURE]))
    if dialect.lists:
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after"))

    assert generate(dialect, max_requests_per_job=5) == expected_generations()
    billed = sandbox.books().billed
    assert sorted(billed.values()) == [1] * 11

    # An empty ledger stands for another machine.
    other_ledger = {"ledger_dir": str(tmp_path)} if dialect.lists and dialect.metadata else {}
    assert generate(dialect, **other_ledger) == expected_generations()
    assert sandbox.books().billed == billed


@pytest.mark.parametrize("endpoint", ["batch", "sync"])
@pytest.mark.parametrize("inputs", [PROMPTS, ["Say a word.", "Say another word."]], ids=["chats", "strings"])
def test_a_server_that_refuses_parameters_without_effect_answers_every_row(sandbox, endpoint, inputs):
    """Groq refuses `logprobs: false` and `top_logprobs: null`, and others refuse `stop: null`."""
    refusals = [
        RequestFailure(contains=part, message="property 'logprobs' is unsupported")
        for part in ('"logprobs":', '"top_logprobs":', '"stop":null', '"echo":false')
    ]
    sandbox.reset(Settings(failures=refusals))
    sync_below = 100 if endpoint == "sync" else 0
    llm = load_as_new_process(OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, sync_below=sync_below))
    assert all(output["generations"][0] for output in llm.generate(inputs))


@pytest.mark.parametrize("name", ["aibrix", "llama-stack", "together"])
def test_partial_results_of_an_expired_batch_are_kept_in_a_dialect(sandbox, name):
    """Half of the job's answers are kept, and only the other half is submitted again."""
    dialect = DIALECTS_BY_NAME[name]
    sandbox.reset(Settings(dialect=dialect, failures=[FAILURE]))
    sandbox.add_fault(BatchFault(kind="expire"))

    assert generate(dialect) == expected_generations()
    assert sorted(sandbox.books().billed.values()) == [1] * 11


def test_the_outputs_at_together_are_those_of_distilabel_s_togetherllm(sandbox):
    sandbox.reset(Settings(dialect="together"))
    llm = TogetherLLM(model="gpt-4o-mini", base_url=sandbox.base_url, api_key="any")
    llm.load()
    expected = llm.generate(PROMPTS)

    batch_llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, batch_api="together")
    assert load_as_new_process(batch_llm).generate(PROMPTS) == expected
    assert not sandbox.books().batches[0]["metadata"]


@pytest.mark.parametrize("sync_below", [0, 100])
def test_requests_may_name_another_path(sandbox, sync_below):
    """A mapping gives a path to each endpoint; synchronous requests go to the address of the server as before."""
    sandbox.reset(Settings(dialect="zhipu"))
    paths = {"/v1/chat/completions": "/v4/chat/completions", "/v1/completions": "/v4/completions"}
    llm = load_as_new_process(
        OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02, sync_below=sync_below, endpoint_path=paths)
    )
    assert all(output["generations"][0] for output in llm.generate(PROMPTS[:2]))
    assert len(sandbox.books().batches) == (not sync_below)


def test_another_path_is_refused_with_the_server_s_message(sandbox):
    sandbox.reset(Settings(dialect="zhipu"))
    with pytest.raises(RunError, match="Invalid value: 'unknown /v1/chat/completions'"):
        load_as_new_process(OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02)).generate(PROMPTS)


def test_results_without_custom_ids_are_not_bought_again(sandbox):
    """No answer can be assigned to a row; a second job would be billed and end the same way."""
    sandbox.reset(Settings(dialect=Dialect(custom_ids=False)))
    with pytest.raises(RequestsFailedError, match="does not return `custom_id`"):
        generate(Dialect())
    assert len(sandbox.books().batches) == 1


def test_unsupported_completion_window_raises_the_server_s_message(sandbox):
    """The run ends before any request is billed."""
    sandbox.reset(Settings(dialect=Dialect(completion_windows=["336h"])))

    with pytest.raises(RunError, match="Supported values are: '336h'"):
        generate(Dialect())
    assert not sandbox.books().billed
