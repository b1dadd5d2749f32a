"""Outputs with a reason for each missing generation."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.plugin.outputs import explained_output, failed_output, with_failures


def test_failed_request_gives_the_reason_of_each_generation():
    """The statistics have one entry, because Tasks read the first one."""
    failure = Failure("No.", 400, tokens=(3, 1))

    output = failed_output(failure, 2)

    assert output == {"generations": [None, None], "statistics": {"input_tokens": [3], "output_tokens": [1]}}
    assert output.failures == [failure, failure]


def test_failures_do_not_change_the_output():
    output = {"generations": ["a", None], "statistics": {}}

    assert with_failures(output, [None, Failure("No.")]) == output


@pytest.mark.parametrize(
    ("choice", "message", "code"),
    [
        ({"message": {"refusal": "I'm sorry."}}, "The model refused: I'm sorry.", "refusal"),
        ({"finish_reason": "content_filter"}, "(finish_reason: content_filter)", "content_filter"),
        ({"finish_reason": "stop", "message": {"refusal": ""}}, "(finish_reason: stop)", "empty_answer"),
        ({}, "(finish_reason: not given)", "empty_answer"),
        (None, "(finish_reason: not given)", "empty_answer"),
    ],
)
def test_reason_of_a_missing_generation_comes_from_its_choice(choice, message, code):
    output = {"generations": [None], "statistics": {}}

    [failure] = explained_output(output, Answer.of({"choices": [choice]})).failures

    assert message in failure.message
    assert failure.code == code


@pytest.mark.parametrize("body", [{"choices": None}, {"choices": []}, {"object": "list"}], ids=str)
def test_answer_without_choices_gives_a_reason(body):
    [failure] = explained_output({"generations": [None], "statistics": {}}, Answer.of(body)).failures

    assert failure.code == "empty_answer"


def test_reason_of_a_generation_that_does_not_fit_the_schema_is_kept():
    rejection = Failure("The answer does not fit the schema.")
    answer = Answer.of({"choices": [{}, {"message": {"content": "b"}}]}, {0: rejection})

    output = explained_output({"generations": [None, "b"], "statistics": {}}, answer)

    assert output.failures == [rejection, None]
