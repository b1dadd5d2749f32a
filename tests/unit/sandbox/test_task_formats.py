"""Replies that distilabel's own Tasks can parse."""

import pytest
from distilabel.models.llms.base import LLM
from distilabel.steps.tasks import (
    ComplexityScorer,
    EvolInstruct,
    InstructionBacktranslation,
    PrometheusEval,
    QualityScorer,
    UltraFeedback,
)

from distilabel_openai_batch.sandbox.model.task_formats import write_reply


class UnusedLLM(LLM):
    """LLM that a Task requires, and that is never called."""

    model_name_: str = "none"

    def load(self):
        super().load()

    @property
    def model_name(self):
        return self.model_name_

    def generate(self, *args, **kwargs):
        raise NotImplementedError


def parse_reply(task, row, number=5):
    task.load()
    return task.format_output(write_reply(task.format_input(row)[-1]["content"], number), row)


@pytest.mark.parametrize(
    "aspect", ["helpfulness", "honesty", "instruction-following", "truthfulness", "overall-rating"]
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ultrafeedback_gets_a_rating_for_each_text(aspect, count):
    """Each rating is from 1 to 5 and has a rationale, for each of the five aspects."""
    row = {"instruction": "Name a river.", "generations": [f"The Rhine, {index}." for index in range(count)]}
    parsed = parse_reply(UltraFeedback(llm=UnusedLLM(), aspect=aspect), row)
    assert len(parsed["ratings"]) == count
    assert all(rating in range(1, 6) for rating in parsed["ratings"])
    assert all(isinstance(rationale, str) for rationale in parsed["rationales"])


def test_ratings_differ():
    """Ratings differ between the texts of a row, and between rows."""
    row = {"instruction": "Name a river.", "generations": ["The Rhine.", "A dog."]}
    task = UltraFeedback(llm=UnusedLLM())
    seen = {tuple(parse_reply(task, row, number)["ratings"]) for number in range(0, 700, 7)}
    assert len(seen) > 3
    assert any(first != second for first, second in seen)


def test_scorers_get_a_score_for_each_item():
    """Each score is from 1 to the number of items plus 1."""
    items = ["first", "second", "third"]
    quality = parse_reply(QualityScorer(llm=UnusedLLM()), {"instruction": "x", "responses": items})
    complexity = parse_reply(ComplexityScorer(llm=UnusedLLM()), {"instructions": items})
    for scores in (quality["scores"], complexity["scores"]):
        assert len(scores) == 3
        assert all(score in range(1, 5) for score in scores)


def test_prometheus_gets_feedback_and_a_result():
    """The result is a number in absolute mode, a letter in relative mode."""
    absolute = PrometheusEval(llm=UnusedLLM(), mode="absolute", rubric="helpfulness")
    relative = PrometheusEval(llm=UnusedLLM(), mode="relative", rubric="helpfulness")
    parsed = parse_reply(absolute, {"instruction": "Name a river.", "generation": "The Rhine."})
    assert parsed["result"] in range(1, 6)
    parsed = parse_reply(relative, {"instruction": "Name a river.", "generations": ["The Rhine.", "A dog."]})
    assert parsed["result"] in ("A", "B")


def test_instruction_backtranslation_gets_a_reason_and_a_score():
    """The score is from 1 to 5."""
    task = InstructionBacktranslation(llm=UnusedLLM())
    parsed = parse_reply(task, {"instruction": "Name a river.", "generation": "The Rhine."})
    assert int(parsed["score"]) in range(1, 6)
    assert parsed["reason"]


def test_evol_instruct_gets_a_harder_instruction():
    """The reply is the given instruction with one more demand, without the prompt around the instruction."""
    task = EvolInstruct(llm=UnusedLLM(), num_evolutions=1)
    for template in task.mutation_templates.values():
        evolved = write_reply(template.replace("<PROMPT>", "Name a river."), 3)
        assert evolved.startswith("Name a river. ")
        assert "#" not in evolved
        assert len(evolved) > len("Name a river. ")
