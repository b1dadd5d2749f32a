"""distilabel's own Tasks can read the answers."""

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

from distilabel_openai_batch.sandbox.replies import reply


class NoLLM(LLM):
    """Stands where a Task wants an LLM; never asked."""

    model_name_: str = "none"

    def load(self):
        super().load()

    @property
    def model_name(self):
        return self.model_name_

    def generate(self, *args, **kwargs):
        raise NotImplementedError


def answered(task, row, number=5):
    task.load()
    return task.format_output(reply(task.format_input(row)[-1]["content"], number), row)


@pytest.mark.parametrize(
    "aspect", ["helpfulness", "honesty", "instruction-following", "truthfulness", "overall-rating"]
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ultrafeedback_gets_a_rating_for_each_text(aspect, count):
    """From 1 to 5, each with its rationale, in each of its five forms."""
    row = {"instruction": "Name a river.", "generations": [f"The Rhine, {index}." for index in range(count)]}
    got = answered(UltraFeedback(llm=NoLLM(), aspect=aspect), row)
    assert len(got["ratings"]) == count
    assert all(rating in range(1, 6) for rating in got["ratings"])
    assert all(isinstance(rationale, str) for rationale in got["rationales"])


def test_ratings_differ():
    """Between the texts of a row, and between rows."""
    row = {"instruction": "Name a river.", "generations": ["The Rhine.", "A dog."]}
    task = UltraFeedback(llm=NoLLM())
    seen = {tuple(answered(task, row, number)["ratings"]) for number in range(0, 700, 7)}
    assert len(seen) > 3
    assert any(first != second for first, second in seen)


def test_the_scorers_get_a_score_for_each_item():
    """From 1 to one more than there are items."""
    items = ["first", "second", "third"]
    quality = answered(QualityScorer(llm=NoLLM()), {"instruction": "x", "responses": items})
    complexity = answered(ComplexityScorer(llm=NoLLM()), {"instructions": items})
    for scores in (quality["scores"], complexity["scores"]):
        assert len(scores) == 3
        assert all(score in range(1, 5) for score in scores)


def test_prometheus_gets_feedback_and_a_result():
    """A number in its absolute mode, a letter in its relative one."""
    absolute = PrometheusEval(llm=NoLLM(), mode="absolute", rubric="helpfulness")
    relative = PrometheusEval(llm=NoLLM(), mode="relative", rubric="helpfulness")
    got = answered(absolute, {"instruction": "Name a river.", "generation": "The Rhine."})
    assert got["result"] in range(1, 6)
    got = answered(relative, {"instruction": "Name a river.", "generations": ["The Rhine.", "A dog."]})
    assert got["result"] in ("A", "B")


def test_instruction_backtranslation_gets_a_reason_and_a_score():
    """From 1 to 5."""
    task = InstructionBacktranslation(llm=NoLLM())
    got = answered(task, {"instruction": "Name a river.", "generation": "The Rhine."})
    assert int(got["score"]) in range(1, 6)
    assert got["reason"]


def test_evol_instruct_gets_a_harder_instruction():
    """The given one, with a demand more; nothing of the prompt around it."""
    task = EvolInstruct(llm=NoLLM(), num_evolutions=1)
    for template in task.mutation_templates.values():
        evolved = reply(template.replace("<PROMPT>", "Name a river."), 3)
        assert evolved.startswith("Name a river. ")
        assert "#" not in evolved
        assert len(evolved) > len("Name a river. ")
