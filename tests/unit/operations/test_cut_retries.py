"""Tests of `operations.cut_retries`: the bound of an estimate counts known answers that the token limit cut."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, read_answer
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.operations.cut_retries import (
    CutRetries,
    RecordedAnswers,
    all_retries,
    find_retries,
    retry_digests,
)
from tests.unit.ledger.samples import CHAT, SCOPE, plan_ended_job, record

USAGE = Usage(100, 10)
DIGESTS = {"a-0": ("a2", "a4", "a8")}
RETRIES = [Usage(100, 20), Usage(100, 40), Usage(100, 80)]


def make_answer(finish_reason: str, content: str = "Text") -> dict:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
    return {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}


@pytest.mark.parametrize(
    ("answered", "cut", "first", "later"),
    [
        ("a-0", "", [], []),
        ("a-0", "a-0", RETRIES[:1], RETRIES[1:]),
        ("a-0 a2-0", "a-0", [], []),
        ("a-0 a2-0", "a-0 a2-0", RETRIES[1:2], RETRIES[2:]),
        ("a-0 a2-0 a4-0 a8-0", "a-0 a2-0 a4-0 a8-0", [], []),
        # A request in progress may be cut.
        ("", "", [], RETRIES),
    ],
)
def test_the_retries_that_the_ledger_lacks_are_counted(answered, cut, first, later):
    recorded = RecordedAnswers(set(answered.split()), set(cut.split()))
    assert find_retries([("a-0", USAGE)], DIGESTS, recorded, {}) == CutRetries(first, later)


def test_equal_requests_have_a_retry_each_and_requests_without_a_limit_have_none():
    names = ["a-0", "a-1", "b-0"]
    recorded = RecordedAnswers({*names, "a2-0"}, set(names))
    digests = {"a-0": ("a2",), "a-1": ("a2",)}
    found = find_retries([(name, USAGE) for name in names], digests, recorded, {})
    assert found.first == RETRIES[:1]
    assert find_retries([("a-0", None)], digests, RecordedAnswers({"a-0"}, {"a-0"}), {}).first == [None]


def test_a_new_request_has_three_retries():
    assert all_retries([USAGE]) == RETRIES
    assert all_retries([None]) == [None] * 3


def test_the_digests_are_those_of_calls_with_twice_the_limit():
    digests = retry_digests(APICall(CHAT, {"model": "m", "max_tokens": 4}), SCOPE.base_url, CHAT)
    calls = [APICall(CHAT, {"model": "m", "max_tokens": limit}) for limit in (8, 16, 32)]
    assert digests == tuple(call.build(SCOPE.base_url, CHAT)[1] for call in calls)
    assert retry_digests(APICall(CHAT, {"model": "m"}), SCOPE.base_url, CHAT) == ()


def test_cut_and_empty_answers_are_read_from_the_ledger(tmp_path):
    ledger = Ledger(tmp_path, SCOPE)
    job = plan_ended_job(ledger, "whole-0", "cut-0", "empty-0", "pending-0")
    record(
        ledger,
        job,
        whole=Answer.of(make_answer("stop")),
        cut=Answer.of(make_answer("length")),
        empty=read_answer(make_answer("length", "")),
    )
    ledger.close()

    recorded = RecordedAnswers.read(LedgerReader(tmp_path), SCOPE)

    assert recorded == RecordedAnswers({"whole-0", "cut-0", "empty-0"}, {"cut-0", "empty-0"})


def test_copies_have_the_names_of_the_own_scope():
    recorded = RecordedAnswers()
    recorded.add_copies(RecordedAnswers({"x-0", "y-0", "z-0"}, {"x-0"}), {"x-0": "a-0", "y-0": "b-0", "w-0": "c-0"})
    assert recorded == RecordedAnswers({"a-0", "b-0"}, {"a-0"})
