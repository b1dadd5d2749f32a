"""`OpenAIBatchModeration` and `ModerateTexts` without a server."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import InvalidSettingError, ModerateTexts, OpenAIBatchModeration
from distilabel_openai_batch.api.outcomes import Answer, Failure
from tests.unit.plugin.stubs import StubSession, StubSessions

RESULT = {"flagged": True, "categories": {"hate": True}, "category_scores": {"hate": 0.9}}


def moderation(*outcomes) -> tuple[OpenAIBatchModeration, StubSession]:
    client = OpenAIBatchModeration(api_key="sk-secret")
    session = StubSession(*outcomes)
    client.use_sessions(StubSessions(session))
    return client, session


@pytest.mark.parametrize("value", ["a", [{"type": "image_url", "image_url": {"url": "https://a.org/b.png"}}]])
def test_each_input_is_a_request(value):
    client, session = moderation(Answer.of({"results": [RESULT]}))

    assert client.moderate([value]) == [RESULT]
    assert session.sent == [("/v1/moderations", {"model": "omni-moderation-latest", "input": value})]


@pytest.mark.parametrize("body", [{}, {"results": []}, {"results": [7]}, {"results": [{"flagged": "yes"}]}])
def test_answer_without_sense_is_no_result(body):
    client, _ = moderation(Answer.of({"results": [RESULT]}), Answer.of(body), Failure("No."))

    assert client.moderate(["a", "b", "c"]) == [RESULT, None, None]


def test_step_adds_the_results_to_its_rows():
    client, _ = moderation(Answer.of({"results": [RESULT]}), Failure("No."))
    step = ModerateTexts(name="moderate", moderation_model=client)

    [rows] = step.process([{"text": "a", "id": 1}, {"text": "b", "id": 2}])

    failed = dict.fromkeys(RESULT)
    assert rows == [
        {"text": "a", "id": 1, **RESULT, "model_name": "omni-moderation-latest"},
        {"text": "b", "id": 2, **failed, "model_name": "omni-moderation-latest"},
    ]
    assert list(step.get_outputs()) == [*RESULT, "model_name"]


def test_step_is_dumped_and_loaded_without_the_key():
    step = ModerateTexts(name="moderate", moderation_model=OpenAIBatchModeration(api_key="sk-secret", max_jobs=7))
    dump = step.dump()

    assert "sk-secret" not in str(dump)
    assert ModerateTexts.from_dict(dump).moderation_model.max_jobs == 7


def test_misspelt_argument_is_refused():
    with pytest.raises(InvalidSettingError, match="Did you mean `moderation_model`"):
        ModerateTexts(moderation_modle=OpenAIBatchModeration())
