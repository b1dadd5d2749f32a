"""`/v1/moderations` and `/v1/images/generations` of the sandbox."""

from __future__ import annotations

import base64
import io

import pytest
from openai.types import ImagesResponse, ModerationCreateResponse
from PIL import Image

from distilabel_openai_batch.sandbox.model.answers import ModelAnswer, answer_request
from distilabel_openai_batch.sandbox.settings import Settings

MODERATIONS, IMAGES = "/v1/moderations", "/v1/images/generations"


def moderate(value, **fields) -> ModelAnswer:
    return answer_request(MODERATIONS, {"model": "omni-moderation-latest", "input": value, **fields}, Settings())


def draw(**fields) -> ModelAnswer:
    return answer_request(IMAGES, {"model": "gpt-image-1.5", "prompt": "A cat.", **fields}, Settings())


@pytest.mark.parametrize(
    ("value", "flagged", "kinds"),
    [
        ("Why is the sky blue?", set(), ["text"]),
        ("I hate you, you idiot!", {"hate", "harassment"}, ["text"]),
        (["Kill them."], {"violence"}, ["text"]),
        (
            [{"type": "text", "text": "Kill them."}, {"type": "image_url", "image_url": {}}],
            {"violence"},
            ["image", "text"],
        ),
    ],
)
def test_words_decide_about_the_categories(value, flagged, kinds):
    body = moderate(value).body
    [result] = body["results"]

    ModerationCreateResponse.model_validate(body)
    assert {name for name, is_flagged in result["categories"].items() if is_flagged} == flagged
    assert result["flagged"] == bool(flagged)
    assert {name for name, score in result["category_scores"].items() if score > 0.5} == flagged
    assert result["category_applied_input_types"]["violence"] == kinds


def test_each_text_of_a_list_has_a_result():
    assert [result["flagged"] for result in moderate(["Hello.", "Kill them."]).body["results"]] == [False, True]


def test_images_can_be_opened():
    body = draw(n=2).body

    ImagesResponse.model_validate(body)
    sizes = {Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).size for image in body["data"]}
    assert (len(body["data"]), sizes) == (2, {(8, 8)})
    assert body["usage"]["output_tokens"] == 544


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (draw(response_format="b64_json"), "unknown_parameter", "Unknown parameter: 'response_format'."),
        (draw(quality="standard"), "invalid_value", "Supported values are: 'low', 'medium'"),
        (draw(n=11), "integer_above_max_value", "Expected a value <= 10"),
        (draw(prompt=7), "invalid_type", "'prompt'"),
        (answer_request(IMAGES, {"model": "gpt-image-1.5"}, Settings()), "missing_required_parameter", "'prompt'"),
        (moderate("a", user="b"), None, "Unrecognized request argument supplied: user"),
        (moderate(7), "invalid_type", "'input'"),
    ],
)
def test_refusals_are_openais(answer, code, message):
    assert (answer.status, answer.body["error"]["code"]) == (400, code)
    assert message in answer.body["error"]["message"]
