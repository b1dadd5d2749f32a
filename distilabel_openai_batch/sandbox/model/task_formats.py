"""Replies in the formats that the prompts of distilabel's Tasks demand, so that the Tasks can parse the replies."""

from __future__ import annotations

import re
from collections.abc import Callable

from .prose import subjects, topic, write_prose

_VERDICTS = {
    1: "It misses the request: {a} is not dealt with at all.",
    2: "It touches on {a} but leaves out {b}, and parts of it are doubtful.",
    3: "It is correct as far as it goes, yet {b} is treated too briefly.",
    4: "It answers the request well; only a remark on {b} could be clearer.",
    5: "It answers the request fully and clearly, {a} and {b} included.",
}
# Ratings in the order in which they are given: mostly good, as a good model earns.
_RATINGS = (4, 5, 3, 4, 2, 5, 4, 3, 1, 5, 4)
_DEMANDS = (
    "Explain each step and the reason for it.",
    "Give one example and one case in which the answer would be different.",
    "Keep the answer under 150 words and name its main assumption.",
    "Compare two ways of doing it and say which one you would choose.",
    "Take into account that the reader knows nothing about {a}.",
)


def _verdict(rating: int, instruction: str) -> str:
    a, b = subjects(instruction)
    return _VERDICTS[rating].replace("{a}", a).replace("{b}", b)


def _between(prompt: str, start: str, end: str) -> str:
    """Return the text between the last `start` and the next `end`, on one line."""
    return " ".join(prompt.rpartition(start)[2].partition(end)[0].split())


def _ultrafeedback(prompt: str, seed: int) -> str:
    """Reply to UltraFeedback: one section per text, as `UltraFeedback.format_output` parses the reply."""
    form, _, annotation = prompt.rpartition("## Annotation")
    instruction = _between(annotation, "Instruction:", "Texts:")
    text_count = max(int(label) for label in re.findall(r"#### Output for Text (\d+)", form))
    has_type = "\nType: " in form
    sections = []
    for index in range(text_count):
        rating = _RATINGS[(seed // 7 + index * 4) % len(_RATINGS)]
        verdict = _verdict(rating, instruction)
        type_lines = f"Type: {'None' if rating > 3 else 6 - rating - 2}\nRationale: {verdict}\n" if has_type else ""
        sections.append(f"#### Output for Text {index + 1}\n{type_lines}Rating: {rating}\nRationale: {verdict}")
    return "\n\n".join(sections)


def _scorer(prompt: str, seed: int) -> str:
    """Reply to QualityScorer and ComplexityScorer: one score per item, from 1 to the number of items plus 1."""
    found = re.search(r"Score 1-(\d+)", prompt)
    item_count = int(found.group(1)) if found else 1
    return "\n".join(
        f"[{index + 1}] Score: {1 + (seed // 7 + index * 3) % (item_count + 1)}" for index in range(item_count)
    )


def _prometheus_absolute(prompt: str, seed: int) -> str:
    """Reply to PrometheusEval in absolute mode: feedback and a number."""
    rating = _RATINGS[seed % len(_RATINGS)]
    instruction = _between(prompt, "###The instruction to evaluate:", "###Response")
    return f"Feedback: {_verdict(rating, instruction)} [RESULT] {rating}"


def _prometheus_relative(prompt: str, seed: int) -> str:
    """Reply to PrometheusEval in relative mode: feedback and a letter."""
    better, worse = ("A", "B") if seed % 2 else ("B", "A")
    a, _ = subjects(_between(prompt, "###Instruction:", "###Response"))
    return f"Feedback: Response {better} deals with {a} more fully than response {worse}. [RESULT] {better}"


def _backtranslation(prompt: str, seed: int) -> str:
    """Reply to InstructionBacktranslation: a reason, then the score on the last line."""
    rating = _RATINGS[seed % len(_RATINGS)]
    return f"{_verdict(rating, prompt.rpartition('last line.')[2])}\nScore: {rating}"


def _evol_instruct(prompt: str, seed: int) -> str:
    """Reply to EvolInstruct and similar Tasks: the given prompt with one more demand."""
    found = re.findall(r"#(?:The )?Given Prompt#:?\s*(.*?)\s*#(?:Rewritten|Created) Prompt#", prompt, re.DOTALL)
    instruction = found[-1] if found else topic(prompt)
    a, _ = subjects(instruction)
    demand = _DEMANDS[seed % len(_DEMANDS)].replace("{a}", a)
    return f"{instruction.rstrip()} {demand}"


_FORMATS: tuple[tuple[re.Pattern[str], Callable[[str, int], str]], ...] = (
    (re.compile(r"#### Output for Text 1\n.*## Annotation", re.DOTALL), _ultrafeedback),
    (re.compile(r"Score 1-\d+\..*\[1\] Score: 1", re.DOTALL), _scorer),
    (re.compile(r"\[RESULT\] \(an integer number"), _prometheus_absolute),
    (re.compile(r"\[RESULT\] \(A or B\)"), _prometheus_relative),
    (re.compile(r'write "Score: <rating>" in the last line'), _backtranslation),
    (re.compile(r"#(?:Rewritten|Created) Prompt#:?\s*$"), _evol_instruct),
)
# Each format above has one of these markers; prompts without a marker skip the regular expressions.
_MARKERS = ("#", "Score", "[RESULT]")


def write_reply(prompt: str, seed: int, characters: int | None = None) -> str:
    """Write the text of an answer: in a Task's format if the prompt demands one, else in prose.

    Args:
        prompt: text of the last user message.
        seed: number of the variant; neighbouring numbers give different texts where the format allows.
        characters: number of characters, from the first, that the caller uses; `None` for the whole text.
    """
    if any(marker in prompt for marker in _MARKERS):
        for pattern, write in _FORMATS:
            if pattern.search(prompt):
                return write(prompt, seed)
    return write_prose(prompt, seed, characters)
