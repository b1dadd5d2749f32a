"""Outputs of an LLM, with as many generations as requested, and a reason for each missing generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distilabel.typing import GenerateOutput

from distilabel_openai_batch.api.failure_codes import (
    CONTENT_FILTER,
    EMPTY_ANSWER,
    LENGTH_LIMIT,
    MISSING_CHOICE,
    MODEL_REFUSAL,
    TRUNCATED_ANSWER,
)
from distilabel_openai_batch.api.outcomes import SPENT_LIMIT, Answer, Failure, Outcome, is_spent
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.hooks.failure_columns import AnnotatedOutput
from distilabel_openai_batch.text import escape_surrogates


def with_failures(output: GenerateOutput, failures: Sequence[Failure | None]) -> GenerateOutput:
    """Attach to an output the failure of each generation, `None` for a generation that is present."""
    annotated = AnnotatedOutput(output)
    annotated.failures = failures
    annotated.reasoning = output.reasoning if isinstance(output, AnnotatedOutput) else ()
    return annotated


def with_reasoning_cells(output: GenerateOutput, cells: Sequence[dict[str, Any] | None] | None) -> GenerateOutput:
    """Attach to an output the cell of the reasoning column for each generation; `None` for no cells."""
    if cells is None:
        return output
    annotated = output if isinstance(output, AnnotatedOutput) else AnnotatedOutput(output)
    annotated.reasoning = cells
    return annotated


def first_failure(output: GenerateOutput) -> Failure | None:
    """Return the first failure of an output's missing generations; `None` if all generations are present."""
    failures = output.failures if isinstance(output, AnnotatedOutput) else ()
    return _first_missing(failures)


def failed_output(failure: Failure, num_generations: int) -> GenerateOutput:
    """Return the output of a request that failed: no generation, and the failure as the reason.

    Tasks read the first entry of the statistics, so the statistics have one entry.
    """
    tokens_in, tokens_out = failure.tokens
    statistics = {"input_tokens": [tokens_in], "output_tokens": [tokens_out]}
    output: GenerateOutput = {"generations": [None] * num_generations, "statistics": statistics}
    return with_failures(output, [failure] * num_generations)


def complete_output(
    output: GenerateOutput, outcome: Outcome, num_generations: int, custom_id: str | None = None
) -> GenerateOutput:
    """Return an output with `None`, and the reason, for each generation that is absent or has no usable text.

    Args:
        output: the output, as `OpenAILLM` or a subclass made it.
        outcome: the last outcome that the output was made of.
        num_generations: the requested number of generations.
        custom_id: the `custom_id` of the request, for the reasons.
    """
    generations = output["generations"]
    missing = num_generations - len(generations)
    if missing > 0:
        generations = [*generations, *[None] * missing]
    failures = _failures(generations, outcome, num_generations, custom_id)
    if not any(failures):
        return output
    output["generations"] = [
        None if failure and not failure.is_kept else generation
        for generation, failure in zip(generations, failures, strict=True)
    ]
    return with_failures(output, failures)


def complete_body(answer: Answer, call: APICall, custom_id: str | None) -> tuple[dict[str, Any], Failure | None]:
    """Return an answer's body with a choice for each requested generation, and the first missing one's reason."""
    body = answer.body
    choices, requested = body.get("choices"), call.body.get("n") or 1
    if not isinstance(choices, list) or not isinstance(requested, int):
        return body, None
    reasons = [
        _choice_failure(answer, choices, index, requested, custom_id) for index in range(max(requested, len(choices)))
    ]
    empty = {"message": {"role": "assistant", "content": None}, "text": None, "finish_reason": None}
    for index, reason in enumerate(reasons):
        if index >= len(choices):
            choices.append(empty | {"index": index})
        elif reason and not reason.is_kept and (reason.code == TRUNCATED_ANSWER or _text(choices[index]) == ""):
            choices[index] = choices[index] | {name: empty[name] for name in ("message", "text")}
    return body, _first_missing(reasons)


def _first_missing(failures: Sequence[Failure | None]) -> Failure | None:
    return next((failure for failure in failures if failure and not failure.is_kept), None)


def _failures(
    generations: Sequence[str | None], outcome: Outcome, num_generations: int, custom_id: str | None
) -> list[Failure | None]:
    """Return the reason of each missing or cut generation; `None` for a generation that is whole."""
    if isinstance(outcome, Failure):
        return [None if generation else outcome for generation in generations]
    body = outcome.body
    choices = body.get("choices")
    choices = choices if isinstance(choices, list) else []
    failures: list[Failure | None] = []
    for index, generation in enumerate(generations):
        failure = None
        if not generation or (outcome.choice_failures and index in outcome.choice_failures):
            failure = _choice_failure(outcome, choices, index, num_generations, custom_id)
            if failure is None and generation is None:
                failure = _empty(None, custom_id)
        failures.append(failure)
    return failures


def _choice_failure(
    answer: Answer, choices: Sequence[object], index: int, num_generations: int, custom_id: str | None
) -> Failure | None:
    """Return why a choice is missing or cut; `None` for a choice with a text, which a model may leave empty."""
    if answer.choice_failures and index in answer.choice_failures:
        return answer.choice_failures[index]
    if index >= len(choices):
        message = f"The answer has {len(choices)} of {num_generations} generations."
        return Failure(message, code=MISSING_CHOICE, custom_id=custom_id)
    choice = choices[index]
    if not isinstance(choice, dict):
        return _empty(None, custom_id)
    if is_spent(choice):
        return Failure(SPENT_LIMIT, code=LENGTH_LIMIT, custom_id=custom_id)
    text, finish_reason = _text(choice), choice.get("finish_reason")
    if text or (text == "" and finish_reason != CONTENT_FILTER):
        return None
    refusal = _message(choice).get("refusal")
    if isinstance(refusal, str) and refusal:
        return Failure(f"The model refused: {refusal}", code=MODEL_REFUSAL, custom_id=custom_id)
    return _empty(finish_reason, custom_id)


def _empty(finish_reason: object, custom_id: str | None) -> Failure:
    return Failure(
        f"The answer has no text (finish_reason: {finish_reason or 'not given'}).",
        code=escape_surrogates(str(finish_reason)) if finish_reason and finish_reason != "stop" else EMPTY_ANSWER,
        custom_id=custom_id,
    )


def _text(choice: Mapping[str, Any]) -> object:
    """Return the text of a choice of either endpoint; `None` without a text."""
    return choice.get("text") if choice.get("message") is None else _message(choice).get("content")


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}
