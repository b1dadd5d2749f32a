"""Prompts that ask for an answer in a fixed form, and the answer in that form: distilabel's Tasks can parse it."""

from __future__ import annotations

import re
from collections.abc import Callable

from .prose import prose, subjects, topic

_VERDICTS = {
    1: "It misses the request: {a} is not dealt with at all.",
    2: "It touches on {a} but leaves out {b}, and parts of it are doubtful.",
    3: "It is correct as far as it goes, yet {b} is treated too briefly.",
    4: "It answers the request well; only a remark on {b} could be clearer.",
    5: "It answers the request fully and clearly, {a} and {b} included.",
}
# Most answers of a good model are good.
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
    """Returns the last passage between two marks, on one line."""
    return " ".join(prompt.rpartition(start)[2].partition(end)[0].split())


def _ratings(prompt: str, number: int) -> str:
    """UltraFeedback: a section for each text, as `UltraFeedback.format_output` takes them apart."""
    form, _, annotation = prompt.rpartition("## Annotation")
    instruction = _between(annotation, "Instruction:", "Texts:")
    texts = max(int(label) for label in re.findall(r"#### Output for Text (\d+)", form))
    typed = "\nType: " in form
    sections = []
    for index in range(texts):
        rating = _RATINGS[(number // 7 + index * 4) % len(_RATINGS)]
        verdict = _verdict(rating, instruction)
        kind = f"Type: {'None' if rating > 3 else 6 - rating - 2}\nRationale: {verdict}\n" if typed else ""
        sections.append(f"#### Output for Text {index + 1}\n{kind}Rating: {rating}\nRationale: {verdict}")
    return "\n\n".join(sections)


def _scores(prompt: str, number: int) -> str:
    """QualityScorer and ComplexityScorer: a score for each item, from 1 to one more than there are items."""
    found = re.search(r"Score 1-(\d+)", prompt)
    items = int(found.group(1)) if found else 1
    return "\n".join(f"[{index + 1}] Score: {1 + (number // 7 + index * 3) % (items + 1)}" for index in range(items))


def _absolute(prompt: str, number: int) -> str:
    """PrometheusEval in its absolute mode."""
    rating = _RATINGS[number % len(_RATINGS)]
    instruction = _between(prompt, "###The instruction to evaluate:", "###Response")
    return f"Feedback: {_verdict(rating, instruction)} [RESULT] {rating}"


def _relative(prompt: str, number: int) -> str:
    """PrometheusEval in its relative mode."""
    better, worse = ("A", "B") if number % 2 else ("B", "A")
    a, _ = subjects(_between(prompt, "###Instruction:", "###Response"))
    return f"Feedback: Response {better} deals with {a} more fully than response {worse}. [RESULT] {better}"


def _backtranslation(prompt: str, number: int) -> str:
    """InstructionBacktranslation: a reason, then the score on the last line."""
    rating = _RATINGS[number % len(_RATINGS)]
    return f"{_verdict(rating, prompt.rpartition('last line.')[2])}\nScore: {rating}"


def _evolved(prompt: str, number: int) -> str:
    """EvolInstruct and its kin: the prompt with one demand more."""
    found = re.findall(r"#(?:The )?Given Prompt#:?\s*(.*?)\s*#(?:Rewritten|Created) Prompt#", prompt, re.DOTALL)
    given = found[-1] if found else topic(prompt)
    a, _ = subjects(given)
    demand = _DEMANDS[number % len(_DEMANDS)].replace("{a}", a)
    return f"{given.rstrip()} {demand}"


REPLIES: tuple[tuple[re.Pattern[str], Callable[[str, int], str]], ...] = (
    (re.compile(r"#### Output for Text 1\n.*## Annotation", re.DOTALL), _ratings),
    (re.compile(r"Score 1-\d+\..*\[1\] Score: 1", re.DOTALL), _scores),
    (re.compile(r"\[RESULT\] \(an integer number"), _absolute),
    (re.compile(r"\[RESULT\] \(A or B\)"), _relative),
    (re.compile(r'write "Score: <rating>" in the last line'), _backtranslation),
    (re.compile(r"#(?:Rewritten|Created) Prompt#:?\s*$"), _evolved),
)
_MARKS = ("#### Output", "Score 1-", "[RESULT]", "Score: <rating>", " Prompt#")


def reply(prompt: str, number: int) -> str:
    """Returns the text of an answer.

    Args:
        prompt: the last message of the user.
        number: which of the possible answers; those next to each other differ where the form lets them.
    """
    if any(mark in prompt for mark in _MARKS):
        for pattern, write in REPLIES:
            if pattern.search(prompt):
                return write(prompt, number)
    return prose(prompt, number)
