"""What the README says of the alternatives, measured against the same server."""

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
    """distilabel's own way to use the Batch API."""
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


def test_one_request_of_five_fails(sandbox, tmp_path):
    """Ours loses its row, the offline mode shifts the others' answers, the synchronous LLM loses the row group."""
    right = dict(answers(synchronous_llm(), tmp_path / "right"))
    sandbox.configure(failures=[RequestFailure(contains="number 2")])

    ours = answers(batch_llm(), tmp_path / "ours")
    offline = answers(offline_llm(), tmp_path / "offline")
    synchronous = answers(synchronous_llm(), tmp_path / "synchronous")

    assert ours == [(row, None if "number 2" in row else answer) for row, answer in right.items()]
    assert len(offline) == 4
    assert sum(right[row] != answer for row, answer in offline) == 2
    assert [answer for _, answer in synchronous] == [None] * 5


def test_the_reply_to_a_creation_is_lost(sandbox):
    """One batch for us, one more with each retry for the SDK that the offline mode stands on."""
    batches = []
    for llm in (batch_llm(), offline_llm()):
        sandbox.reset()
        sandbox.add_fault(Fault(call="batches.create", kind="cut_after", times=2))
        llm.load()
        llm.generate_outputs([[{"role": "user", "content": "Say it."}]])
        batches.append(len(sandbox.books().batches))

    assert batches == [1, 3]


def test_the_offline_mode_is_for_tasks_that_opt_in():
    """EvolInstruct does not; to it, ours is like any other LLM."""
    EvolInstruct(llm=batch_llm(), num_evolutions=1)

    with pytest.raises(ValidationError, match="cannot be used with offline batch generation"):
        EvolInstruct(llm=offline_llm(), num_evolutions=1)
