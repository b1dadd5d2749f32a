"""`add_failures`: why a row has no answer stands in the row, in whichever way its Task works."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

import itertools

import pytest
from distilabel.pipeline import Pipeline, routing_batch_function
from distilabel.steps import EmbeddingGeneration, GroupColumns, KeepColumns, LoadDataFromDicts, StepInput
from distilabel.steps.tasks import EvolInstruct, GenerateEmbeddings, MonolingualTripletGenerator, TextGeneration

from distilabel_openai_batch import (
    LoadBatchResults,
    OpenAIBatchEmbeddings,
    OpenAIBatchLLM,
    StreamBatchResults,
    SubmitBatch,
)
from distilabel_openai_batch.api.failure_codes import EMPTY, LOST
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.engine.calls import scope_memories
from distilabel_openai_batch.hooks.failure_columns import output_cells
from distilabel_openai_batch.sandbox import RequestFailure, ResultFault

SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
SEVENTH = RequestFailure(contains="number 7.", status=400, code="seventh", message="It is the seventh.")
EMBEDDING = "text-embedding-3-small"


def llm(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.05, "add_failures": True, **fields})


def numbers(count=12) -> list[dict]:
    return [{"instruction": f"Say number {i}.", "text": f"number {i}.", "id": i} for i in range(count)]


def processed(step, rows=None) -> list[dict]:
    """What a step makes of rows in a pipeline, without one."""
    step.load()
    found = next(step.process_applying_mappings(rows if rows is not None else numbers()))
    step.unload()
    return found


def generating(**fields) -> TextGeneration:
    return TextGeneration(name="generate", **{"llm": llm(), "input_batch_size": 5, **fields})


def reasons(rows, step="generate") -> dict[int, str]:
    """The reason of each row that has one, by its `id`."""
    return {row["id"]: row[f"failure_{step}"]["code"] for row in rows if row[f"failure_{step}"] is not None}


def test_a_failed_row_says_why(sandbox):
    """In the API's words, with its status, its code, and the request; the others have `None`."""
    sandbox.configure(failures=[SEVENTH])

    rows = processed(generating())

    failure = rows[7]["failure_generate"]
    assert list(failure) == ["message", "status_code", "code", "custom_id"]
    assert (failure["message"], failure["status_code"], failure["code"]) == ("It is the seventh.", 400, "seventh")
    assert failure["custom_id"].endswith("-0")
    assert rows[7]["generation"] is None
    assert [row["failure_generate"] for row in rows if row["id"] != 7] == [None] * 11


def test_without_it_rows_are_what_they_were(sandbox):
    """No column, no output that is declared."""
    sandbox.configure(failures=[SEVENTH])
    task = generating(llm=llm(add_failures=False))
    assert list(task.get_outputs()) == ["generation", "model_name"]
    assert "failure_generate" not in processed(task)[7]


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
def test_each_generation_of_a_failed_request_says_why(sandbox, grouped):
    """Whether they are rows of their own or one."""
    sandbox.configure(failures=[SEVENTH])

    rows = processed(generating(num_generations=3, group_generations=grouped))

    assert len(rows) == 12 * (1 if grouped else 3)
    assert [row["id"] for row in rows if row["failure_generate"]] == [7] * (1 if grouped else 3)
    assert reasons(rows) == {7: "seventh"}


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
def test_one_generation_of_several_may_have_failed(sandbox, grouped):
    """The one whose answer did not fit the schema."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="number 7.", times=1))
    asked = llm(structured_output={"schema": SCHEMA, "max_retries": 0})
    rows = processed(generating(llm=asked, num_generations=2, group_generations=grouped))

    failed = [row for row in rows if row["failure_generate"]]
    assert {row["id"] for row in failed} == {7}
    if grouped:
        failed_ones = failed[0]["generation"].count(None)
    else:
        failed_ones = len(failed)
        assert all((row["generation"] is None) == (row["failure_generate"] is not None) for row in rows)
    assert failed_ones in (1, 2)
    assert failed[0]["failure_generate"]["code"] == "invalid_structured_output"
    assert failed[0]["failure_generate"]["custom_id"]


class Silent(TextGeneration):
    """A Task that cannot do with a `None`."""

    def format_output(self, output, input=None):
        return {"generation": output.upper()}


class Backwards(TextGeneration):
    """A Task that asks for its rows in another order, and leaves some out."""

    def process(self, inputs: StepInput):
        yield from super().process([row for row in reversed(inputs) if row["id"] % 3])


class Drafts(TextGeneration):
    """A Task that asks twice for each row, and makes its rows itself."""

    def process(self, inputs: StepInput):
        for _ in range(2):
            outputs = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        yield [
            row | {"generation": output["generations"][0], "model_name": "m"}
            for row, output in zip(inputs, outputs, strict=True)
        ]


class Sorted(Drafts):
    """One that makes its rows itself, in another order than it was given them."""

    def process(self, inputs: StepInput):
        yield list(reversed(next(super().process(inputs))))


@pytest.mark.parametrize("task", [Silent, Backwards, Drafts])
def test_the_reason_is_in_the_right_row(sandbox, task):
    """Whatever the Task does with its rows."""
    sandbox.configure(failures=[SEVENTH])
    rows = processed(task(name="generate", llm=llm(), input_batch_size=5))
    assert reasons(rows) == {7: "seventh"}
    assert all(row["generation"] for row in rows if row["id"] != 7)


def test_where_the_row_is_not_known_its_group_is_named(sandbox):
    """In a row that lacks something, and never in one that has all."""
    sandbox.configure(failures=[SEVENTH])
    rows = processed(Sorted(name="generate", llm=llm(), input_batch_size=5))
    assert reasons(rows) == {7: "seventh"}
    [failed] = [row["failure_generate"] for row in rows if row["failure_generate"]]
    assert failed["message"].startswith("In the row's group 2 requests failed, the first: It is the seventh.")


def test_a_row_that_is_lost_with_its_group_says_so(sandbox):
    """And the row whose request failed says why."""
    sandbox.configure(failures=[SEVENTH])
    rows = processed(EvolInstruct(name="generate", llm=llm(), num_evolutions=1, input_batch_size=5))
    assert reasons(rows) == {5: LOST, 6: LOST, 7: "seventh", 8: LOST, 9: LOST}
    assert all((row["failure_generate"] is None) == (row["evolved_instruction"] is not None) for row in rows)


def test_embeddings_say_why_too(sandbox):
    """Those of `EmbeddingGeneration`, and of `GenerateEmbeddings`."""
    sandbox.configure(failures=[SEVENTH])
    embeddings = OpenAIBatchEmbeddings(model=EMBEDDING, min_poll_interval=0.05, add_failures=True)
    rows = processed(EmbeddingGeneration(name="generate", embeddings=embeddings, input_batch_size=5))
    assert reasons(rows) == {7: "seventh"}
    rows = processed(GenerateEmbeddings(name="generate", llm=llm(model=EMBEDDING), input_batch_size=5))
    assert reasons(rows) == {7: "seventh"}


def test_a_step_that_makes_its_own_rows_says_why(sandbox):
    """There are none that it was given."""
    sandbox.configure(failures=[RequestFailure(contains="model", status=500, code="first", message="No.")])
    step = MonolingualTripletGenerator(name="generate", llm=llm(max_attempts=1), language="English", seed=1)
    step.load()
    [(rows, _)] = list(step.process_applying_mappings())
    found = [row["failure_generate"] for row in rows]
    assert [each["code"] for each in found if each] == ["first"]


def test_a_group_of_more_rows_than_are_asked_at_once(sandbox):
    """Its parts are answered in any order."""
    sandbox.configure(failures=[RequestFailure(contains="number 1107.", code="far", message="It is far.")])
    rows = processed(generating(input_batch_size=1_300), numbers(1_300))
    assert reasons(rows) == {1107: "far"}


def test_an_answer_without_a_word_says_why():
    """A refusal, or what the API says that it ended with."""
    choices = [
        {"message": {"role": "assistant", "content": None, "refusal": "I cannot."}, "finish_reason": "stop"},
        {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"},
        {"message": {"role": "assistant", "content": None}, "finish_reason": "stop"},
        {"message": {"role": "assistant", "content": "Here."}, "finish_reason": "stop"},
    ]
    client = llm(api_key="sk-unused")
    client.load()
    output = client._output([], 4, {}, Answer.of({"id": "a", "choices": choices}))
    assert [cell and cell["code"] for cell in output_cells(output, 4)] == [
        "refusal",
        "content_filter",
        EMPTY,
        None,
    ]


def run(pipeline: Pipeline) -> list[dict]:
    return pipeline.run(use_cache=False)["default"]["train"].to_list()


def test_a_dataset_whose_first_rows_have_no_failure(sandbox, tmp_path):
    """Two Tasks in a row, and an ordinary step that hands on fifty rows at a time: the columns keep their types."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 57.", status=500, code="far", message="It is far."),
            RequestFailure(contains="Judge Say number 61.", code="none", message="No judgement."),
        ]
    )
    with Pipeline(name="typed", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=numbers(110))
        judge = TextGeneration(name="judge", llm=llm(), template="Judge {{ instruction }}")
        keep = KeepColumns(columns=["id", "generation", "failure_generate", "failure_judge"])
        load >> generating(llm=llm(max_attempts=1)) >> judge >> keep

    rows = run(pipeline)

    assert len(rows) == 110
    assert reasons(rows) == {57: "far"}
    assert rows[57]["failure_generate"]["status_code"] == 500
    assert reasons(rows, "judge") == {57: "far", 61: "none"}


@routing_batch_function()
def one_of_two(steps):
    return [steps[next(turns[0]) % 2]]


turns = [itertools.count()]


def test_routed_rows_have_the_columns_of_all_branches(sandbox, tmp_path):
    """`None` for the Task that they did not go through."""
    sandbox.configure(failures=[RequestFailure(contains="number 57.", code="far", message="It is far.")])
    turns[0] = itertools.count()
    with Pipeline(name="routed", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=numbers(100), batch_size=50)
        left, right = (TextGeneration(name=name, llm=llm(), input_batch_size=50) for name in ("left", "right"))
        load >> one_of_two >> [left, right] >> GroupColumns(columns=["generation"])

    rows = sorted(run(pipeline), key=lambda row: row["id"])

    assert [row["id"] for row in rows] == list(range(100))
    assert reasons(rows, "right") == {57: "far"}
    assert reasons(rows, "left") == {}


def test_the_other_ways_to_run_say_why_too(sandbox, tmp_path):
    """A stream's rows, and those that were submitted and are loaded later; also where they come many at a time."""
    sandbox.configure(failures=[RequestFailure(contains="number 57.", code="far", message="It is far.")])
    with Pipeline(name="streaming", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(task=generating(), data=numbers(60), batch_size=50)
    assert reasons(run(pipeline)) == {57: "far"}

    submit = SubmitBatch(task=generating(), run_name="numbers")
    submit.load()
    list(submit.process(numbers(60)))
    with Pipeline(name="loading", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(task=generating(), run_name="numbers", batch_size=50)
    rows = run(pipeline)
    assert reasons(rows) == {57: "far"}
    assert [row["id"] for row in rows if row["batch_failure"]] == [57]


def test_another_run_asks_what_failed_again_and_nothing_else(sandbox):
    """As the log says."""
    sandbox.configure(failures=[SEVENTH])
    processed(generating())
    sandbox.configure(failures=[])
    # A run in a process of its own begins to count each question anew.
    scope_memories.clear()

    rows = processed(generating())

    assert reasons(rows) == {}
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [1, 12]
