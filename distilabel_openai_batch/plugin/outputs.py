"""Outputs of an LLM with a reason for each missing generation."""

from __future__ import annotations

from collections.abc import Sequence

from distilabel.typing import GenerateOutput

from distilabel_openai_batch.api.failure_codes import EMPTY, REFUSAL
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.hooks.failure_columns import OutputWithFailures


def _with_failures(output: GenerateOutput, failures: Sequence[Failure | None]) -> GenerateOutput:
    failed = OutputWithFailures(output)
    failed.failures = failures
    return failed


def _unsaid(answer: Answer, place: int, generation: str | None) -> Failure | None:
    """Why a generation of an answer is `None`, if it is."""
    if generation is not None:
        return None
    if answer.rejected and place in answer.rejected:
        return answer.rejected[place]
    choices = answer.body.get("choices")
    choice = choices[place] if isinstance(choices, list) and place < len(choices) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if isinstance(refusal, str) and refusal:
        return Failure(f"The model refused: {refusal}", code=REFUSAL, custom_id=answer.custom_id)
    reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    return Failure(
        f"The model said nothing (finish_reason: {reason or 'not given'}).",
        code=str(reason) if reason and reason != "stop" else EMPTY,
        custom_id=answer.custom_id,
    )


def _failed(failure: Failure, num_generations: int) -> GenerateOutput:
    """What a row has whose request failed, and why. Tasks read the first of the statistics, so there is one."""
    tokens_in, tokens_out = failure.tokens
    statistics = {"input_tokens": [tokens_in], "output_tokens": [tokens_out]}
    output: GenerateOutput = {"generations": [None] * num_generations, "statistics": statistics}
    return _with_failures(output, [failure] * num_generations)
