"""Tests of `display.advice`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.display.advice import (
    ANY_WAY,
    LOAD_AGAIN,
    LOAD_WITH_RESUBMIT,
    RUN_AGAIN,
    SUBMIT_AGAIN,
    next_step,
)

CASES = [
    (Failure("Too many requests.", 429, "rate_limit_exceeded"), "only requests without an answer are submitted."),
    (Failure("Oops.", 503), "only requests without an answer are submitted."),
    (Failure("Not in time.", code="batch_expired"), "window closed"),
    (Failure("The job's files do not mention it.", code="missing_result"), "Run again"),
    (Failure("Filtered.", 400, "content_filter"), "reword these rows"),
    (Failure("The model refused: no.", code="refusal"), "reword these rows"),
    (Failure("At most 128000 tokens.", 400, "context_length_exceeded"), "Shorten these rows"),
    (Failure("max_tokens is too large: 99999.", 400, "invalid_value"), "Lower `max_new_tokens`"),
    (
        Failure(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead"
            ".",
            400,
            "unsupported_parameter",
        ),
        '`token_limit_parameter="max_completion_tokens"`',
    ),
    (
        Failure("Unrecognized request argument supplied: max_completion_tokens", 400),
        '`token_limit_parameter="max_tokens"`',
    ),
    (Failure("Cut.", code="truncated"), 'Set `on_truncated="retry"`'),
    (Failure("Spent.", 200, "length"), "these rows get up to 8 times the limit. Or raise `max_new_tokens`"),
    (Failure("The answer has 1 of 3 generations.", code="missing_choice"), "in place of `num_generations`"),
    (Failure("The answer has no choices.", 200, "missing_choice"), "only requests without an answer are submitted."),
    (Failure("Does not fit.", code="invalid_structured_output"), "Raise `max_retries`"),
    (Failure("No such model.", 404, "model_not_found"), "Check `model`"),
    (Failure("The API deployment for this resource does not exist.", 404, "DeploymentNotFound"), "Global Batch"),
    (
        Failure("This model is only supported in v1/responses and not in v1/chat/completions.", 404),
        'Set `endpoint="responses"`',
    ),
    (Failure("No such parameter.", 400, "unsupported_parameter"), "Change `generation_kwargs`"),
    (Failure("No result has a custom_id.", code="unnamed_result"), "drops `custom_id`"),
    (Failure("No job of this run asked it.", code="not_submitted"), "of the submission"),
    (Failure("Something else.", 400), "Fix these rows"),
]


@pytest.mark.parametrize(("failure", "advice"), CASES, ids=lambda value: getattr(value, "message", None))
def test_each_kind_of_failure_has_advice_of_one_line(failure, advice):
    text = next_step(failure, "a-0")

    assert advice in text
    assert "\n" not in text
    assert len(text) < 135


def test_a_row_that_could_not_be_encoded_needs_a_fix():
    assert "No request was sent" in next_step(Failure("The input cannot be made into a request."), None)


@pytest.mark.parametrize(
    ("message", "replacement"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "`max_completion_tokens`"),
        ("Unrecognized request argument supplied: max_completion_tokens", "`max_tokens`"),
        ("Function tools with reasoning_effort are not supported for alias.", "`response_format`"),
        ("This model is only supported in v1/responses and not in v1/chat/completions.", "`/v1/responses`"),
    ],
)
@pytest.mark.parametrize("way", [LOAD_WITH_RESUBMIT, ANY_WAY])
def test_loading_names_resubmit_for_a_refused_parameter(message, replacement, way):
    """The refusal is recorded, so no parameter has to be set: a changed parameter would make new requests."""
    text = next_step(Failure(message, 400), "a-0", way)

    assert re.search("[Ll]oad (a submission )?with `resubmit=True`", text)
    assert replacement in text
    assert "new requests" not in text


@pytest.mark.parametrize("code", ["truncated", "length"])
@pytest.mark.parametrize(
    ("way", "advice"),
    [
        (replace(RUN_AGAIN, retries_cut=True), "Even 8 times the limit may be too small: raise `max_new_tokens`"),
        (ANY_WAY, "If it is set, and rows of the dataset lack a generation: raise `max_new_tokens`"),
    ],
)
def test_advice_on_a_spent_limit_knows_that_a_retry_may_be_set_already(code, way, advice):
    assert advice in next_step(Failure("Cut.", code=code), "a-0", way)


@pytest.mark.parametrize("way", [LOAD_AGAIN, LOAD_WITH_RESUBMIT, SUBMIT_AGAIN])
@pytest.mark.parametrize("failure", [failure for failure, _ in CASES], ids=lambda failure: failure.message)
def test_advice_of_a_submission_names_no_run_of_a_script(failure, way):
    text = next_step(failure, "a-0", way)

    assert "run again" not in text.lower()
    assert "use_cache" not in text or way is SUBMIT_AGAIN
