"""Outputs of an LLM, with a reason for each missing generation."""

from __future__ import annotations

from collections.abc import Sequence

from distilabel.typing import GenerateOutput

from distilabel_openai_batch.api.failure_codes import EMPTY, REFUSAL
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.hooks.failure_columns import OutputWithFailures


def with_failures(output: GenerateOutput, failures: Sequence[Failure | None]) -> GenerateOutput:
    """Attach to an output the failure of each generation, `None` for a generation that is present."""
    annotated = OutputWithFailures(output)
    annotated.failures = failures
    return annotated


def failed_output(failure: Failure, num_generations: int) -> GenerateOutput:
    """Return the output of a request that failed: no generation, and the failure as the reason.

    Tasks read the first entry of the statistics, so the statistics have one entry.
    """
    tokens_in, tokens_out = failure.tokens
    statistics = {"input_tokens": [tokens_in], "output_tokens": [tokens_out]}
    output: GenerateOutput = {"generations": [None] * num_generations, "statistics": statistics}
    return with_failures(output, [failure] * num_generations)


def explained_output(output: GenerateOutput, answer: Answer) -> GenerateOutput:
    """Attach to an output the reason of each missing generation."""
    return with_failures(output, [_reason(answer, *generation) for generation in enumerate(output["generations"])])


def _reason(answer: Answer, index: int, generation: str | None) -> Failure | None:
    """Return the failure that explains a missing generation; `None` for a generation that is present."""
    if generation is not None:
        return None
    if answer.choice_failures and index in answer.choice_failures:
        return answer.choice_failures[index]
    choices = answer.body.get("choices")
    choice = choices[index] if isinstance(choices, list) and index < len(choices) else None
    message = choice.get("message") if isinstance(choice, dict) else None
    refusal = message.get("refusal") if isinstance(message, dict) else None
    if isinstance(refusal, str) and refusal:
        return Failure(f"The model refused: {refusal}", code=REFUSAL, custom_id=answer.custom_id)
    finish_reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    return Failure(
        f"The answer has no text (finish_reason: {finish_reason or 'not given'}).",
        code=str(finish_reason) if finish_reason and finish_reason != "stop" else EMPTY,
        custom_id=answer.custom_id,
    )
