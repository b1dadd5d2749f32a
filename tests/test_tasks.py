"""Every Task of distilabel that can run on an API LLM gives the same dataset with both LLMs.

Left out, because no `OpenAILLM` can serve them either: `Magpie` and `MagpieGenerator` (they need an LLM that continues
a chat template), `PairRM` (a local model), `ImageGeneration` (an image model) and `GenerateEmbeddings` (a model's hidden
states). `StructuredGeneration` always asks for structured output, which `OpenAILLM` can give with `instructor` alone;
`TextClassification` and `ArgillaLabeller` do so unless told otherwise, as they are here.
"""

from __future__ import annotations

import json

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput
from distilabel.steps.tasks import (
    CLAIR,
    URIAL,
    APIGenGenerator,
    APIGenSemanticChecker,
    ArgillaLabeller,
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

ROWS = 30
ROW_GROUP = 7
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
RUBRIC = {"criteria": "Is it right?"} | {f"score{score}_description": f"{score} of 5" for score in range(1, 6)}


class UsersOwn(Task):
    """A Task as users write them, which knows nothing of batches."""

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


class UsersTwoRounds(UsersOwn):
    """A Task that calls the LLM twice, the second time with what it said first."""

    name: str = "users_two_rounds"

    def process(self, inputs: StepInput):
        drafts = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        second = [[{"role": "user", "content": f"Better: {draft['generations'][0]}"}] for draft in drafts]
        for row, output in zip(inputs, self.llm.generate_outputs(second, temperature=0.5), strict=True):
            row["echo"] = output["generations"][0]
            row["model_name"] = self.llm.model_name
        yield inputs


@task(inputs=["instruction"], outputs=["summary"])
def Decorated(output, input=None):  # distilabel makes a class of it
    """
    ---
    system_prompt: |
        You summarise.

    user_message_template: |
        Summarise: {instruction}
    ---
    """
    return {"summary": output}


# Where a Task draws random numbers between two calls, an argument takes the choice away.
ONE_MUTATION = {"mutation_templates": {"ONE": "Rewrite the prompt.\n<PROMPT>\n#Rewritten Prompt#:"}}
TASKS = {
    APIGenGenerator: {"number": 2},
    APIGenSemanticChecker: {},
    ArgillaLabeller: {"use_default_structured_output": False},
    CLAIR: {},
    Decorated: {},
    ChatGeneration: {},
    ComplexityScorer: {},
    EvolComplexity: {"num_evolutions": 2, **ONE_MUTATION},
    EvolInstruct: {"num_evolutions": 2, "generate_answers": True, **ONE_MUTATION},
    EvolQuality: {"num_evolutions": 2, **ONE_MUTATION},
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
    PrometheusEval: {"mode": "absolute", "rubric": "mine", "rubrics": {"mine": json.dumps(RUBRIC)}},
    QualityScorer: {},
    SelfInstruct: {},
    TextClassification: {"use_default_structured_output": False, "available_labels": ["good", "bad"]},
    TextGeneration: {"num_generations": 2, "group_generations": True},
    TextGenerationWithImage: {"image_type": "url"},
    UltraFeedback: {},
    URIAL: {},
    UsersOwn: {"num_generations": 2},
    UsersTwoRounds: {},
}
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
    EvolComplexityGenerator: {"num_instructions": 5},
    EvolInstructGenerator: {"num_instructions": 5, "generate_answers": True},
    MonolingualTripletGenerator: {
        "language": "English",
        "unit": "sentence",
        "difficulty": "college",
        "high_score": "4",
        "low_score": "2.5",
    },
}


def rows(instructions: list[dict[str, str]]) -> list[dict]:
    """Real instructions, dressed with a column for each Task that asks for another."""
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
            "solutions": [f"Step 1: {i}. Step 2: so. The answer is: {i}", "Step 1: none. The answer is: 0"],
            "golden_solution": f"Step 1: {i}. The answer is: {i}",
            "record": {"fields": {"text": text}, "id": str(i)},
            "fields": [{"name": "text", "title": "text", "type": {"type": "text"}}],
            "question": {
                "name": "good",
                "title": "Good?",
                "description": "Is it good?",
                "settings": {"type": "label_selection", "options": [{"value": "yes"}, {"value": "no"}]},
            },
        }
        for i, text in enumerate(texts)
    ]


def dataset(llm_class, rows, tmp_path_factory):
    """All Tasks side by side over the same rows, in one pipeline: what each made of them."""
    with Pipeline(name="tasks", cache_dir=tmp_path_factory.mktemp("cache")) as pipeline:
        load = LoadDataFromDicts(data=rows)
        for task_class, arguments in TASKS.items():
            load >> task_class(
                name=task_class.__name__,
                llm=llm_class(model="gpt-4o-mini", **QUICK.get(llm_class, {})),
                input_batch_size=ROW_GROUP,
                **arguments,
            )
    distiset = pipeline.run(use_cache=False)
    return {name: split["train"].to_list() for name, split in distiset.items()}


QUICK = {OpenAIBatchLLM: {"min_poll_interval": 0.1}}


@pytest.fixture(scope="module")
def datasets(running_sandbox, instructions, tmp_path_factory):
    """What each of the two LLM classes made of the same rows."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        running_sandbox.reset()
        monkeypatch.setenv("OPENAI_BASE_URL", running_sandbox.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-any")
        data = rows(instructions)
        made = {llm_class: dataset(llm_class, data, tmp_path_factory) for llm_class in (OpenAILLM, OpenAIBatchLLM)}
        made["books"] = running_sandbox.books()
        return made


@pytest.mark.parametrize("task_class", TASKS, ids=lambda task_class: task_class.__name__)
def test_a_task_makes_the_same_dataset_with_both_llms(datasets, task_class):
    """Row by row, column by column, metadata included."""
    ours = datasets[OpenAIBatchLLM][task_class.__name__]

    assert len(ours) >= ROWS
    assert ours == datasets[OpenAILLM][task_class.__name__]


@pytest.mark.parametrize("task_class", GENERATOR_TASKS, ids=lambda task_class: task_class.__name__)
def test_a_generator_task_makes_the_same_rows_with_both_llms(sandbox, task_class):
    """It has no input, and calls `generate` by itself."""
    made = []
    for llm_class in (OpenAILLM, OpenAIBatchLLM):
        step = task_class(llm=llm_class(model="gpt-4o-mini", **QUICK.get(llm_class, {})), **GENERATOR_TASKS[task_class])
        step.load()
        made.append(list(step.process_applying_mappings()))
        step.unload()

    assert made[0]
    assert made[1] == made[0]


def test_a_round_of_calls_is_one_job(datasets):
    """However small the row groups are: thirty rows in groups of seven are one job a round."""
    rounds = {EvolComplexity: 2, EvolInstruct: 3, EvolQuality: 2, UsersTwoRounds: 2}
    several = {task_class: rounds.get(task_class, 1) for task_class in TASKS if task_class is not MathShepherdCompleter}

    assert len(datasets["books"].batches) >= sum(several.values())
