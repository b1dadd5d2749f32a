"""Every Task of distilabel that runs on an API LLM gives the same dataset with both LLMs.

Missing here, because no `OpenAILLM` can serve them either: `Magpie` and `MagpieGenerator` (they need an LLM that
continues a chat template), `PairRM` (a local model), `ImageGeneration` (an image model) and `GenerateEmbeddings` (a
model's hidden states). `StructuredGeneration` and `ArgillaLabeller` always need structured output, for which
`OpenAILLM` needs `instructor`; `TextClassification` needs structured output by default, and here runs without.
"""

# No `from __future__ import annotations`: distilabel looks for the class `StepInput` in a function's annotations.

import anyio
import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.steps import StepInput
from distilabel.steps.tasks import (
    CLAIR,
    URIAL,
    APIGenGenerator,
    APIGenSemanticChecker,
    BitextRetrievalGenerator,
    ChatGeneration,
    ComplexityScorer,
    EmbeddingTaskGenerator,
    EvolComplexity,
    EvolComplexityGenerator,
    EvolInstruct,
    EvolInstructGenerator,
    EvolQuality,
    GenerateLongTextMatchingData,
    GenerateSentencePair,
    GenerateShortTextMatchingData,
    GenerateTextClassificationData,
    GenerateTextRetrievalData,
    Genstruct,
    InstructionBacktranslation,
    MathShepherdCompleter,
    MathShepherdGenerator,
    MonolingualTripletGenerator,
    PrometheusEval,
    QualityScorer,
    SelfInstruct,
    Task,
    TextClassification,
    TextGeneration,
    TextGenerationWithImage,
    UltraFeedback,
    task,
)

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.row_groups import process_side_by_side, split_into_row_groups

ROWS = 30
ROW_GROUP = 7
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
RUBRIC = "[Is it right?]\n" + "\n".join(f"Score {score}: {score} of 5" for score in range(1, 6))


class UserTask(Task):
    """A user's own Task, written without regard to batches."""

    @property
    def inputs(self):
        return ["instruction"]

    @property
    def outputs(self):
        return ["echo", "model_name"]

    def format_input(self, input):
        return [{"role": "user", "content": f"Repeat: {input['instruction']}"}]

    def format_output(self, output, input=None):
        return {"echo": output}


class TwoRoundUserTask(UserTask):
    """A Task that calls the LLM twice, the second time with the first answer."""

    def process(self, inputs: StepInput):
        drafts = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        second = [[{"role": "user", "content": f"Better: {draft['generations'][0]}"}] for draft in drafts]
        for row, output in zip(inputs, self.llm.generate_outputs(second, temperature=0.5), strict=True):
            row["echo"] = output["generations"][0]
            row["model_name"] = self.llm.model_name
        yield inputs


@task(inputs=["instruction"], outputs=["summary"])
def Decorated(output, input=None):  # the decorator makes a class of the function
    """
    ---
    system_prompt: |
        You summarise.

    user_message_template: |
        Summarise: {instruction}
    ---
    """
    return {"summary": output}


# A Task that draws random numbers between two calls gets an argument with a single choice → both runs are equal.
ONE_MUTATION = {"mutation_templates": {"ONE": "Rewrite the prompt.\n<PROMPT>\n#Rewritten Prompt#:"}}
TASKS = {
    APIGenGenerator: {"number": 2},
    APIGenSemanticChecker: {},
    CLAIR: {},
    Decorated: {},
    ChatGeneration: {},
    ComplexityScorer: {},
    EvolComplexity: {"num_evolutions": 2, **ONE_MUTATION},
    EvolInstruct: {"num_evolutions": 2, "generate_answers": True, "store_evolutions": True, **ONE_MUTATION},
    # The Task seeds its mutations itself, in each row group.
    EvolQuality: {"num_evolutions": 2},
    GenerateLongTextMatchingData: {"language": "English"},
    GenerateSentencePair: {"triplet": True, "action": "paraphrase"},
    GenerateShortTextMatchingData: {"language": "English"},
    GenerateTextClassificationData: {"language": "English", "difficulty": "PhD", "clarity": "clear"},
    GenerateTextRetrievalData: {
        "query_type": "common",
        "query_length": "5 to 15 words",
        "difficulty": "college",
        "clarity": "clear",
        "num_words": 50,
    },
    Genstruct: {},
    InstructionBacktranslation: {},
    MathShepherdCompleter: {"N": 2},
    MathShepherdGenerator: {"M": 3},
    PrometheusEval: {"mode": "absolute", "rubric": "mine", "rubrics": {"mine": RUBRIC}},
    QualityScorer: {},
    SelfInstruct: {},
    TextClassification: {"use_default_structured_output": False, "available_labels": ["good", "bad"]},
    TextGeneration: {"num_generations": 2, "group_generations": True},
    TextGenerationWithImage: {"image_type": "url"},
    UltraFeedback: {},
    URIAL: {},
    UserTask: {"num_generations": 2},
    TwoRoundUserTask: {},
}
# Number of calls of the LLM per row, for Tasks with more than one.
ROUNDS = {EvolComplexity: 2, EvolInstruct: 3, EvolQuality: 2, MathShepherdCompleter: 4, TwoRoundUserTask: 2}
GENERATOR_TASKS = {
    BitextRetrievalGenerator: {
        "source_language": "English",
        "target_language": "Spanish",
        "unit": "sentence",
        "difficulty": "college",
        "high_score": "4",
        "low_score": "2.5",
    },
    EmbeddingTaskGenerator: {"category": "text-retrieval"},
    EvolComplexityGenerator: {"num_instructions": 5, "min_length": 1, "max_length": 100_000},
    EvolInstructGenerator: {
        "num_instructions": 5,
        "generate_answers": True,
        "min_length": 1,
        "max_length": 100_000,
    },
    MonolingualTripletGenerator: {
        "language": "English",
        "unit": "sentence",
        "difficulty": "college",
        "high_score": "4",
        "low_score": "2.5",
    },
}


def rows(instructions: list[dict[str, str]]) -> list[dict]:
    """Return rows with real instructions and with the columns that all Tasks need."""
    texts = [row["instruction"] for row in instructions[:ROWS]]
    return [
        {
            "instruction": text,
            "instructions": [text, f"{text} Why?"],
            "generation": f"An answer to {text}",
            "generations": ["one answer", f"another to {text}"],
            "response": "a response",
            "responses": ["one response", "another"],
            "task": text,
            "student_solution": f"{i}",
            "messages": [{"role": "user", "content": text}],
            "anchor": text,
            "title": f"Title {i}",
            "content": text,
            "input": text,
            "text": text,
            "image": PIXEL,
            "examples": '{"query": "sum"}',
            "func_name": f"function_{i}",
            "func_desc": text,
            "query": text,
            "answers": "[]",
            "execution_result": f"{i}",
            "keep_row_after_execution_check": i % 3 != 0,
            "solutions": [
                [f"Step 1: {i}.", "Step 2: so.", "Step 3: then.", f"The answer is: {answer}"] for answer in (i, 0)
            ],
            "golden_solution": [f"Step 1: {i}.", f"The answer is: {i}"],
        }
        for i, text in enumerate(texts)
    ]


def load_task(task_class, llm_class, arguments):
    fields = {"min_poll_interval": 0.1} if llm_class is OpenAIBatchLLM else {}
    step = task_class(name="step", llm=llm_class(model="gpt-4o-mini", **fields), **arguments)
    step.load()
    return step


def process_rows(step, data):
    """Process all row groups of a step with our LLM, as a pipeline does."""
    groups = split_into_row_groups(step, (data,))
    found = {}
    anyio.run(process_side_by_side, step, batch_client(step), groups, found.__setitem__)
    return [row for index in range(len(groups)) for row in found[index]]


@pytest.mark.parametrize("task_class", TASKS, ids=lambda task_class: task_class.__name__)
def test_task_makes_the_same_dataset_with_both_llms(sandbox, instructions, task_class):
    """All rows and columns are equal, metadata included, and each round of calls is one job."""
    arguments = {"input_batch_size": ROW_GROUP, **TASKS[task_class]}
    # A step gets one row group at a time, a step with our LLM many at the same time.
    step = load_task(task_class, OpenAILLM, arguments)
    data = rows(instructions)
    theirs = [
        row
        for start in range(0, ROWS, ROW_GROUP)
        for row in next(step.process_applying_mappings(data[start : start + ROW_GROUP]))
    ]
    step = load_task(task_class, OpenAIBatchLLM, arguments)
    ours = process_rows(step, rows(instructions))

    assert len(ours) >= ROWS
    assert ours == theirs
    assert len(sandbox.books().batches) == ROUNDS.get(task_class, 1)


@pytest.mark.parametrize("task_class", GENERATOR_TASKS, ids=lambda task_class: task_class.__name__)
def test_generator_task_makes_the_same_rows_with_both_llms(sandbox, task_class):
    """A generator Task has no input, and calls `generate` itself."""
    theirs, ours = (
        list(load_task(task_class, llm_class, GENERATOR_TASKS[task_class]).process_applying_mappings())
        for llm_class in (OpenAILLM, OpenAIBatchLLM)
    )

    assert theirs
    assert ours == theirs
