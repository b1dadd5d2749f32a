"""Outputs with a reason for each missing generation."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.plugin.outputs import (
    complete_body,
    complete_output,
    failed_output,
    first_failure,
    with_failures,
)


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
        ({"finish_reason": "length", "message": {"content": None}}, "raise `max_new_tokens`", "length"),
        ({"finish_reason": "content_filter"}, "(finish_reason: content_filter)", "content_filter"),
        ({"finish_reason": "stop", "message": {"refusal": ""}}, "(finish_reason: stop)", "empty_answer"),
        ({}, "(finish_reason: not given)", "empty_answer"),
        (None, "(finish_reason: not given)", "empty_answer"),
    ],
)
def test_reason_of_a_missing_generation_comes_from_its_choice(choice, message, code):
    output = {"generations": [None], "statistics": {}}

    [failure] = complete_output(output, Answer.of({"choices": [choice]}), 1).failures

    assert message in failure.message
    assert failure.code == code


@pytest.mark.parametrize("body", [{"choices": None}, {"choices": []}, {"object": "list"}], ids=str)
def test_answer_without_choices_gives_a_reason(body):
    [failure] = complete_output({"generations": [None], "statistics": {}}, Answer.of(body), 1).failures

    assert failure.code == "missing_choice"


def test_reason_of_a_generation_that_does_not_fit_the_schema_is_kept():
    rejection = Failure("The answer does not fit the schema.")
    answer = Answer.of({"choices": [{}, {"message": {"content": "b"}}]}, {0: rejection})

    output = complete_output({"generations": [None, "b"], "statistics": {}}, answer, 2)

    assert output.failures == [rejection, None]


def choice(content: str | None, finish_reason: str = "stop") -> dict:
    return {"finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}


SPENT = choice("", "length")


def test_generation_that_the_answer_lacks_is_none():
    output = complete_output({"generations": ["a"]}, Answer.of({"choices": [choice("a")]}), 3, "x-0")

    assert output["generations"] == ["a", None, None]
    assert [failure and (failure.message, failure.code, failure.custom_id) for failure in output.failures] == [
        None,
        ("The answer has 1 of 3 generations.", "missing_choice", "x-0"),
        ("The answer has 1 of 3 generations.", "missing_choice", "x-0"),
    ]


def test_generation_without_text_at_the_token_limit_is_none():
    """A text that was cut stays, and so does a text that the model left empty itself."""
    choices = [SPENT, choice("cut", "length"), choice(""), choice("", "content_filter")]

    output = complete_output({"generations": ["", "cut", "", ""]}, Answer.of({"choices": choices}), 4)

    assert output["generations"] == [None, "cut", "", None]
    assert [failure and failure.code for failure in output.failures] == ["length", None, None, "content_filter"]
    assert first_failure(output) == output.failures[0]


def test_empty_text_alone_is_no_failure():
    output = {"generations": [""]}

    assert complete_output(output, Answer.of({"choices": [choice("")]}), 1) is output
    assert first_failure(output) is None


def test_failure_is_the_reason_of_each_generation_without_text():
    """A subclass that calls the model itself has an output even though a request failed."""
    failure = Failure("No.", 400)

    output = complete_output({"generations": ["a", None]}, failure, 3)

    assert output["generations"] == ["a", None, None]
    assert output.failures == [None, failure, failure]


def test_body_gets_a_choice_for_each_requested_generation():
    """A text that the token limit left empty becomes `None`, as does an absent choice."""
    answer = Answer.of({"choices": [choice("a"), SPENT]})

    body, failure = complete_body(answer, APICall("/v1/chat/completions", {"n": 3}), "x-0")

    assert [each["message"]["content"] for each in body["choices"]] == ["a", None, None]
    assert (failure.code, failure.custom_id) == ("length", "x-0")


@pytest.mark.parametrize("body", [{"choices": [choice("a")]}, {"choices": "none"}, {}], ids=str)
def test_complete_or_malformed_body_stays_unchanged(body):
    assert complete_body(Answer.of(body), APICall("/v1/chat/completions", {}), "x-0") == (body, None)


CUT_CHOICE = {"finish_reason": "length", "message": {"content": "Half"}}


@pytest.mark.parametrize(("is_kept", "generation"), [(True, "Half"), (False, None)])
def test_cut_generation_is_explained(is_kept, generation):
    """A kept text is no missing generation."""
    failure = Failure("Cut.", code="truncated", is_kept=is_kept)
    answer = Answer.of({"choices": [CUT_CHOICE]}, {0: failure})

    output = complete_output({"generations": ["Half"], "statistics": {}}, answer, 1)

    assert output["generations"] == [generation]
    assert output.failures == [failure]
    assert first_failure(output) == (None if is_kept else failure)


@pytest.mark.parametrize(("is_kept", "content"), [(True, "Half"), (False, None)])
def test_body_of_a_cut_answer_has_its_text_only_if_kept(is_kept, content):
    failure = Failure("Cut.", code="truncated", is_kept=is_kept)
    answer = Answer.of({"choices": [CUT_CHOICE]}, {0: failure})

    body, missing = complete_body(answer, APICall("/v1/chat/completions", {"model": "m"}), "a-0")

    assert body["choices"][0]["message"]["content"] == content
    assert missing == (None if is_kept else failure)
