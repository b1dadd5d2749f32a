"""`OpenAIBatchImageGeneration` without a server."""

from __future__ import annotations

import pytest
from distilabel.models.image_generation import OpenAIImageGeneration
from distilabel.steps.tasks import ImageGeneration

from distilabel_openai_batch import InvalidSettingError, OpenAIBatchImageGeneration
from distilabel_openai_batch.api.outcomes import Answer, Failure
from tests.unit.plugin.stubs import StubSession, StubSessions

IMAGE = Answer.of({"data": [{"b64_json": "aW1hZ2U="}]})


def image_model(*outcomes, model="gpt-image-1.5", **fields) -> tuple[OpenAIBatchImageGeneration, StubSession]:
    client = OpenAIBatchImageGeneration(model=model, api_key="sk-secret", **fields)
    session = StubSession(*outcomes)
    client.use_sessions(StubSessions(session))
    return client, session


@pytest.mark.parametrize(
    ("model", "kwargs", "fields"),
    [
        ("gpt-image-1.5", {}, {}),
        ("openai/gpt-image-1-mini", {"quality": "low", "size": None}, {"quality": "low"}),
        ("chatgpt-image-latest", {"response_format": "url"}, {}),
        ("flux", {"response_format": "url", "style": "vivid"}, {"response_format": "b64_json", "style": "vivid"}),
    ],
)
def test_each_prompt_is_a_request_for_images_in_base64(model, kwargs, fields):
    """GPT image models refuse `response_format`; the address of an image may be invalid when a batch ends."""
    client, session = image_model(IMAGE, model=model)

    assert client.generate(["a cat"], **kwargs) == [[{"images": ["aW1hZ2U="]}]]
    assert session.sent == [("/v1/images/generations", {"model": model, "n": 1, "prompt": "a cat"} | fields)]


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": [7]}, {"data": [{"url": "https://a.org"}]}])
def test_answer_without_an_image_is_an_empty_list(body):
    client, _ = image_model(IMAGE, Answer.of(body), Failure("No."))

    assert [output[0]["images"] for output in client.generate(["a", "b", "c"])] == [["aW1hZ2U="], [], []]


async def test_agenerate_takes_one_prompt():
    client, session = image_model(Answer.of({"data": [{"b64_json": "YQ=="}, {"b64_json": "Yg=="}]}))

    assert await client.agenerate("a cat", num_generations=2, quality="high") == [{"images": ["YQ==", "Yg=="]}]
    assert session.sent[0][1]["n"] == 2


def test_task_makes_rows_of_the_images():
    client, _ = image_model(IMAGE, Failure("No."), generation_kwargs={"quality": "low"})
    task = ImageGeneration(name="draw", image_generation_model=client)
    task._logger = client._logger

    [rows] = task.process([{"prompt": "a cat"}, {"prompt": "a dog"}])

    assert [row["image"] for row in rows] == ["aW1hZ2U=", None]
    assert isinstance(client, OpenAIImageGeneration)


def test_generation_kwargs_are_those_of_distilabels_class():
    client, _ = image_model(IMAGE)
    theirs = OpenAIImageGeneration(model="gpt-image-1.5", api_key="sk-secret")

    names = {parameter.name for parameter in client.generate_parameters}
    assert {parameter.name for parameter in theirs.generate_parameters} <= names


def test_misspelt_argument_is_refused():
    with pytest.raises(InvalidSettingError, match="Did you mean `max_jobs`"):
        OpenAIBatchImageGeneration(model="gpt-image-1.5", max_job=7)
