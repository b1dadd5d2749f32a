"""The Responses API against the sandbox: batches, synchronous requests, structured output, resume, adoption, Azure."""

from __future__ import annotations

import sys

import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchLLM
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.sandbox import ResultFault
from tests.support.environment import load_as_new_process

pytestmark = pytest.mark.usefixtures("small_packs")

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
MODEL = "gpt-5-pro"


@pytest.fixture(autouse=True)
def script(monkeypatch):
    """Make `asking.py` the script's name, and so the scope's."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])


def generate(questions=QUESTIONS, kwargs: dict | None = None, **fields) -> list[str | None]:
    llm = OpenAIBatchLLM(**{"model": MODEL, "min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(questions, **kwargs or {})]


@pytest.mark.parametrize("fields", [{}, {"sync_below": 100}], ids=["batch", "synchronous"])
def test_chats_are_answered_and_billed_once(sandbox, fields):
    answers = generate(**fields)

    assert all(answers)
    assert generate(**fields) == answers
    books = sandbox.books()
    assert {batch["endpoint"] for batch in books.batches} <= {"/v1/responses"}
    assert sum(books.billed.values()) + books.sync == 6


def test_cut_answers_are_submitted_again(sandbox):
    sandbox.configure(reasoning_tokens=100)

    assert all(len(text) > 100 for text in generate(kwargs={"max_new_tokens": 103}, on_truncated="retry"))


def test_structured_answers_are_checked_and_repaired(sandbox):
    """The second request shows the model its own call of a function."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="number 3."))

    assert all(generate(structured_output={"schema": SCHEMA, "mode": "tools"}, reasoning_effort="low"))
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [6, 1]


def test_response_without_text_is_explained(sandbox):
    kinds = {"refuse": "refusal", "filter": "content_filter", "spend_limit": "length", "no_choices": "missing_choice"}
    for number, kind in enumerate(kinds):
        sandbox.add_fault(ResultFault(kind=kind, contains=f"number {number}."))
    llm = load_as_new_process(OpenAIBatchLLM(model=MODEL, min_poll_interval=0.02))
    outputs = llm.generate(QUESTIONS)

    assert [output["generations"][0] is None for output in outputs] == [True] * 4 + [False] * 2
    assert [output.failures[0].code for output in outputs[:4]] == list(kinds.values())


def test_submission_is_loaded_by_another_run_without_the_ledger(sandbox, tmp_path):
    llm = OpenAIBatchLLM(model=MODEL, min_poll_interval=0.02)
    llm.join_submission(SubmissionRun("numbers", waits=False, submits=True))
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        load_as_new_process(llm).generate(QUESTIONS)
    llm = OpenAIBatchLLM(model=MODEL, min_poll_interval=0.02, ledger_dir=str(tmp_path))
    llm.join_submission(SubmissionRun("numbers", waits=True, submits=False))

    assert all(output["generations"][0] for output in load_as_new_process(llm).generate(QUESTIONS))
    assert len(sandbox.books().batches) == 1


def test_alias_of_a_reasoning_model_is_learned_from_the_refusal(sandbox):
    """OpenAI refuses `top_p` with any value, and distilabel always sends the parameter."""
    sandbox.configure(aliases={"my-deployment": MODEL})

    assert all(generate(model="my-deployment", endpoint="responses", preflight=True))
    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [5]


def test_alias_that_chat_completions_do_not_serve_is_learned_from_the_refusal(sandbox):
    """No answer is billed twice, retries of cut answers go there too, and the next run sends no chat."""
    sandbox.configure(aliases={"my-deployment": MODEL}, reasoning_tokens=100)
    fields = {"model": "my-deployment", "on_truncated": "retry", "kwargs": {"max_new_tokens": 103}}
    answers = generate(**fields)

    assert all(len(text) > 100 for text in answers)
    assert generate(**fields) == answers
    assert [batch["endpoint"] for batch in sandbox.books().batches] == ["/v1/chat/completions"] + ["/v1/responses"] * 2
    assert generate([*QUESTIONS, [{"role": "user", "content": "And one more?"}]], **fields)[:6] == answers
    assert {batch["endpoint"] for batch in sandbox.books().batches[3:]} == {"/v1/responses"}


def test_azure_serves_responses_below_its_versioned_address(sandbox):
    sandbox.configure(dialect={"azure": True, "azure_versioned": True})
    address = sandbox.base_url.replace("/v1", "/openai/v1/")
    llm = AzureOpenAIBatchLLM(model=MODEL, base_url=address, api_key="key", min_poll_interval=0.02)

    assert all(output["generations"][0] for output in load_as_new_process(llm).generate(QUESTIONS))
