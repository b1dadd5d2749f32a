"""Tests of the statements about alternatives in the documentation, measured against the sandbox."""

from __future__ import annotations

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import EvolInstruct, TextGeneration
from pydantic import ValidationError

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.sandbox import Fault, RequestFailure

ROWS = [{"instruction": f"Say number {i}."} for i in range(5)]


def offline_llm() -> OpenAILLM:
    """Return distilabel's own LLM for the Batch API."""
    return OpenAILLM(
        model="gpt-4o-mini", use_offline_batch_generation=True, offline_batch_generation_block_until_done=1
    )


def batch_llm() -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.1)


def synchronous_llm() -> OpenAILLM:
    return OpenAILLM(model="gpt-4o-mini")


def answers(llm, tmp_path) -> list[tuple[str, str | None]]:
    with Pipeline(name="answers", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(data=ROWS) >> TextGeneration(name="generate", llm=llm)
    rows = pipeline.run(use_cache=False)["default"]["train"]
    return [(row["instruction"], row["generation"]) for row in rows]


def test_one_failed_request_of_five(sandbox, tmp_path):
    """The batch LLM loses one row, the offline mode shifts other answers, the synchronous LLM loses the row group."""
    expected = dict(answers(synchronous_llm(), tmp_path / "synchronous-expected"))
    sandbox.configure(failures=[RequestFailure(contains="number 2")])

    batch = answers(batch_llm(), tmp_path / "batch")
    offline = answers(offline_llm(), tmp_path / "offline")
    synchronous = answers(synchronous_llm(), tmp_path / "synchronous")

    assert batch == [(row, None if "number 2" in row else answer) for row, answer in expected.items()]
    assert len(offline) == 4
    assert sum(expected[row] != answer for row, answer in offline) == 2
    assert [answer for _, answer in synchronous] == [None] * 5


def test_lost_reply_to_a_creation(sandbox):
    """The batch LLM creates one batch. The SDK under the offline mode creates one more with each retry."""
    batches = []
    for llm in (batch_llm(), offline_llm()):
        sandbox.reset()
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=2))
        llm.load()
        llm.generate_outputs([[{"role": "user", "content": "Say it."}]])
        batches.append(len(sandbox.books().batches))

    assert batches == [1, 3]


def test_offline_mode_refuses_tasks_that_do_not_opt_in():
    """EvolInstruct does not opt in, and accepts the batch LLM like any other."""
    EvolInstruct(llm=batch_llm(), num_evolutions=1)

    with pytest.raises(ValidationError, match="cannot be used with offline batch generation"):
        EvolInstruct(llm=offline_llm(), num_evolutions=1)
