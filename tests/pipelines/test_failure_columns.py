"""Tests of `add_failures`: a column says why a row has no answer, for each kind of Task."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

import functools
import itertools

import anyio
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
from distilabel_openai_batch.api.failure_codes import EMPTY_ANSWER, ROW_GROUP_LOST
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.engine.calls import scope_memories
from distilabel_openai_batch.hooks.clients import batch_client
from distilabel_openai_batch.hooks.failure_columns import output_cells
from distilabel_openai_batch.hooks.row_groups import process_side_by_side, split_into_row_groups
from distilabel_openai_batch.sandbox import RequestFailure, ResultFault

SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
SEVENTH = RequestFailure(contains="number 7.", status=400, code="seventh", message="It is the seventh.")
EMBEDDING = "text-embedding-3-small"


def llm(**fields) -> OpenAIBatchLLM:
    return OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.05, "add_failures": True, **fields})


def number_rows(count=12) -> list[dict]:
    return [{"instruction": f"Say number {i}.", "text": f"number {i}.", "id": i} for i in range(count)]


def process_rows(step, rows=None) -> list[dict]:
    """Process rows with a step as a pipeline does, in this process."""
    step.load()
    groups = split_into_row_groups(step, (rows if rows is not None else number_rows(),))
    found: dict[int, list[dict]] = {}
    anyio.run(process_side_by_side, step, batch_client(step), groups, found.__setitem__)
    step.unload()
    return [row for index in range(len(groups)) for row in found[index]]


def generation_task(**fields) -> TextGeneration:
    return TextGeneration(name="generate", **{"llm": llm(), "input_batch_size": 5, **fields})


def failure_codes_of(rows, step="generate") -> dict[int, str]:
    """Return the code of each failure by the `id` of its row."""
    return {row["id"]: row[f"failure_{step}"]["code"] for row in rows if row[f"failure_{step}"] is not None}


def test_failed_row_has_a_reason(sandbox):
    """The cell holds the API's message, status, code, and the custom_id; other rows have `None`."""
    sandbox.configure(failures=[SEVENTH])

    rows = process_rows(generation_task())

    failure = rows[7]["failure_generate"]
    assert list(failure) == ["message", "status_code", "code", "custom_id"]
    assert (failure["message"], failure["status_code"], failure["code"]) == ("It is the seventh.", 400, "seventh")
    assert failure["custom_id"].endswith("-0")
    assert rows[7]["generation"] is None
    assert [row["failure_generate"] for row in rows if row["id"] != 7] == [None] * 11


def test_rows_without_add_failures_have_no_failure_column(sandbox):
    sandbox.configure(failures=[SEVENTH])
    task = generation_task(llm=llm(add_failures=False))
    assert list(task.get_outputs()) == ["generation", "model_name"]
    assert "failure_generate" not in process_rows(task)[7]


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
def test_each_generation_of_a_failed_request_has_a_reason(sandbox, grouped):
    """Generations are rows of their own, or grouped in one row."""
    sandbox.configure(failures=[SEVENTH])

    rows = process_rows(generation_task(num_generations=3, group_generations=grouped))

    assert len(rows) == 12 * (1 if grouped else 3)
    assert [row["id"] for row in rows if row["failure_generate"]] == [7] * (1 if grouped else 3)
    assert failure_codes_of(rows) == {7: "seventh"}


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
def test_generation_that_does_not_fit_the_schema_has_a_reason(sandbox, grouped):
    """The other generation of the same request has none."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="number 7.", times=1))
    structured_llm = llm(structured_output={"schema": SCHEMA, "max_retries": 0})
    rows = process_rows(generation_task(llm=structured_llm, num_generations=2, group_generations=grouped))

    failed = [row for row in rows if row["failure_generate"]]
    assert {row["id"] for row in failed} == {7}
    if grouped:
        failed_generations = failed[0]["generation"].count(None)
    else:
        failed_generations = len(failed)
        assert all((row["generation"] is None) == (row["failure_generate"] is not None) for row in rows)
    assert failed_generations in (1, 2)
    assert failed[0]["failure_generate"]["code"] == "invalid_structured_output"
    assert failed[0]["failure_generate"]["custom_id"]


MISSING = [
    ("no_choices", {0: "missing_choice", 1: "missing_choice", 2: "missing_choice"}),
    ("one_choice", {1: "missing_choice", 2: "missing_choice"}),
    ("spend_limit", {0: "length", 1: "length", 2: "length"}),
    ("spend_limit_once", {0: "length"}),
]


@pytest.mark.parametrize("grouped", [False, True], ids=["a row each", "grouped"])
@pytest.mark.parametrize(("kind", "codes"), MISSING, ids=[kind for kind, _ in MISSING])
def test_row_with_a_missing_generation_stays(sandbox, grouped, kind, codes):
    """Each missing generation is `None`, and its row has the reason."""
    sandbox.add_fault(ResultFault(kind=kind, contains="number 7.", times=-1))

    rows = process_rows(generation_task(num_generations=3, group_generations=grouped))

    assert [row["id"] for row in rows] == [id for id in range(12) for _ in range(1 if grouped else 3)]
    assert {row["id"] for row in rows if row["failure_generate"]} == {7}
    sevenths = [row for row in rows if row["id"] == 7]
    if grouped:
        [row] = sevenths
        assert [text is None for text in row["generation"]] == [index in codes for index in range(3)]
        assert row["failure_generate"]["code"] == next(iter(codes.values()))
    else:
        assert [row["generation"] is None for row in sevenths] == [index in codes for index in range(3)]
        found = [row["failure_generate"] and row["failure_generate"]["code"] for row in sevenths]
        assert found == [codes.get(index) for index in range(3)]
    assert all(row["failure_generate"]["custom_id"] for row in sevenths if row["failure_generate"])


@pytest.mark.parametrize(("kind", "codes"), MISSING, ids=[kind for kind, _ in MISSING])
def test_task_that_makes_its_own_rows_has_the_reason_of_a_missing_generation(sandbox, kind, codes):
    sandbox.add_fault(ResultFault(kind=kind, contains="number 7.", times=-1))
    rows = process_rows(CallsForThree(name="generate", llm=llm(), input_batch_size=5))
    assert failure_codes_of(rows) == {7: next(iter(codes.values()))}


@pytest.mark.parametrize(("kind", "codes"), MISSING, ids=[kind for kind, _ in MISSING])
def test_streamed_and_loaded_rows_with_a_missing_generation_stay(sandbox, tmp_path, kind, codes):
    sandbox.add_fault(ResultFault(kind=kind, contains="number 7.", times=-1))
    task = functools.partial(generation_task, num_generations=3)
    with Pipeline(name="streaming", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(task=task(), data=number_rows(12))
    streamed = run(pipeline)

    submit = SubmitBatch(task=task(), run_name="numbers")
    submit.load()
    list(submit.process(number_rows(12)))
    with Pipeline(name="loading", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(task=task(), run_name="numbers")
    loaded = run(pipeline)

    for rows in (streamed, loaded):
        assert [row["id"] for row in rows] == [id for id in range(12) for _ in range(3)]
        assert [row["id"] for row in rows if row["failure_generate"]] == [7] * len(codes)
    assert [row["id"] for row in loaded if row["batch_failure"]] == [7] * len(codes)


class CallsForThree(TextGeneration):
    """A Task that asks for three generations, and makes its output rows without `_format_outputs`."""

    def process(self, inputs: StepInput):
        outputs = self.llm.generate_outputs([self.format_input(row) for row in inputs], num_generations=3)
        yield [
            row | {"generation": output["generations"][0], "model_name": "m"}
            for row, output in zip(inputs, outputs, strict=True)
        ]


class FailsOnNone(TextGeneration):
    """A Task whose `format_output` fails on `None`."""

    def format_output(self, output, input=None):
        return {"generation": output.upper()}


class SendsReversed(TextGeneration):
    """A Task that sends its rows in reverse order, and drops some."""

    def process(self, inputs: StepInput):
        yield from super().process([row for row in reversed(inputs) if row["id"] % 3])


class TwoCalls(TextGeneration):
    """A Task that sends each row twice, and makes its output rows without `_format_outputs`."""

    def process(self, inputs: StepInput):
        for _ in range(2):
            outputs = self.llm.generate_outputs([self.format_input(row) for row in inputs])
        yield [
            row | {"generation": output["generations"][0], "model_name": "m"}
            for row, output in zip(inputs, outputs, strict=True)
        ]


class ReversesRows(TwoCalls):
    """A Task that makes its output rows in reverse order."""

    def process(self, inputs: StepInput):
        yield list(reversed(next(super().process(inputs))))


@pytest.mark.parametrize("task", [FailsOnNone, SendsReversed, TwoCalls])
def test_reason_is_in_the_row_of_its_request(sandbox, task):
    """A Task may send its rows in another order, or in several calls."""
    sandbox.configure(failures=[SEVENTH])
    rows = process_rows(task(name="generate", llm=llm(), input_batch_size=5))
    assert failure_codes_of(rows) == {7: "seventh"}
    assert all(row["generation"] for row in rows if row["id"] != 7)


def test_reason_names_the_row_group_if_the_row_is_not_known(sandbox):
    """Only a row that lacks an answer gets this reason."""
    sandbox.configure(failures=[SEVENTH])
    rows = process_rows(ReversesRows(name="generate", llm=llm(), input_batch_size=5))
    assert failure_codes_of(rows) == {7: "seventh"}
    [failed] = [row["failure_generate"] for row in rows if row["failure_generate"]]
    assert failed["message"].startswith("In the row's group 2 requests failed, the first: It is the seventh.")


def test_row_that_is_lost_with_its_group_has_a_reason(sandbox):
    """The row whose request failed has the reason of that request."""
    sandbox.configure(failures=[SEVENTH])
    rows = process_rows(EvolInstruct(name="generate", llm=llm(), num_evolutions=1, input_batch_size=5))
    assert failure_codes_of(rows) == {
        5: ROW_GROUP_LOST,
        6: ROW_GROUP_LOST,
        7: "seventh",
        8: ROW_GROUP_LOST,
        9: ROW_GROUP_LOST,
    }
    assert all((row["failure_generate"] is None) == (row["evolved_instruction"] is not None) for row in rows)


def test_failed_embeddings_have_a_reason(sandbox):
    """Both `EmbeddingGeneration` and `GenerateEmbeddings` have the column."""
    sandbox.configure(failures=[SEVENTH])
    embeddings = OpenAIBatchEmbeddings(model=EMBEDDING, min_poll_interval=0.05, add_failures=True)
    rows = process_rows(EmbeddingGeneration(name="generate", embeddings=embeddings, input_batch_size=5))
    assert failure_codes_of(rows) == {7: "seventh"}
    rows = process_rows(GenerateEmbeddings(name="generate", llm=llm(model=EMBEDDING), input_batch_size=5))
    assert failure_codes_of(rows) == {7: "seventh"}


def test_rows_of_a_generator_step_have_a_reason(sandbox):
    sandbox.configure(failures=[RequestFailure(contains="model", status=500, code="first", message="No.")])
    step = MonolingualTripletGenerator(name="generate", llm=llm(max_attempts=1), language="English", seed=1)
    step.load()
    [(rows, _)] = list(step.process_applying_mappings())
    found = [row["failure_generate"] for row in rows]
    assert [each["code"] for each in found if each] == ["first"]


def test_reason_is_in_the_right_row_of_a_large_group(sandbox):
    """The group is larger than one call, and the calls are answered in any order."""
    sandbox.configure(failures=[RequestFailure(contains="number 1107.", code="far", message="It is far.")])
    rows = process_rows(generation_task(input_batch_size=1_300), number_rows(1_300))
    assert failure_codes_of(rows) == {1107: "far"}


def test_empty_answer_has_a_reason():
    """The reason is the refusal, or the `finish_reason` of the API."""
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
        EMPTY_ANSWER,
        None,
    ]


def run(pipeline: Pipeline) -> list[dict]:
    return pipeline.run(use_cache=False)["default"]["train"].to_list()


def test_failure_column_keeps_its_type_if_the_first_rows_have_no_failure(sandbox, tmp_path):
    """An ordinary step after two Tasks passes on fifty rows at a time."""
    sandbox.configure(
        failures=[
            RequestFailure(contains="number 57.", status=500, code="far", message="It is far."),
            RequestFailure(contains="Judge Say number 61.", code="none", message="No judgement."),
        ]
    )
    with Pipeline(name="typed", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=number_rows(110))
        judge = TextGeneration(name="judge", llm=llm(), template="Judge {{ instruction }}")
        keep = KeepColumns(columns=["id", "generation", "failure_generate", "failure_judge"])
        load >> generation_task(llm=llm(max_attempts=1)) >> judge >> keep

    rows = run(pipeline)

    assert len(rows) == 110
    assert failure_codes_of(rows) == {57: "far"}
    assert rows[57]["failure_generate"]["status_code"] == 500
    assert failure_codes_of(rows, "judge") == {57: "far", 61: "none"}


@routing_batch_function()
def one_of_two(steps):
    return [steps[next(turns[0]) % 2]]


turns = [itertools.count()]


def test_routed_rows_have_the_failure_columns_of_all_branches(sandbox, tmp_path):
    """The column of a Task that a row did not go through is `None`."""
    sandbox.configure(failures=[RequestFailure(contains="number 57.", code="far", message="It is far.")])
    turns[0] = itertools.count()
    with Pipeline(name="routed", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=number_rows(100), batch_size=50)
        left, right = (TextGeneration(name=name, llm=llm(), input_batch_size=50) for name in ("left", "right"))
        load >> one_of_two >> [left, right] >> GroupColumns(columns=["generation"])

    rows = sorted(run(pipeline), key=lambda row: row["id"])

    assert [row["id"] for row in rows] == list(range(100))
    assert failure_codes_of(rows, "right") == {57: "far"}
    assert failure_codes_of(rows, "left") == {}


def test_streamed_and_loaded_rows_have_a_reason(sandbox, tmp_path):
    """Batches of fifty rows keep the type of the column."""
    sandbox.configure(failures=[RequestFailure(contains="number 57.", code="far", message="It is far.")])
    with Pipeline(name="streaming", cache_dir=tmp_path) as pipeline:
        StreamBatchResults(task=generation_task(), data=number_rows(60), batch_size=50)
    assert failure_codes_of(run(pipeline)) == {57: "far"}

    submit = SubmitBatch(task=generation_task(), run_name="numbers")
    submit.load()
    list(submit.process(number_rows(60)))
    with Pipeline(name="loading", cache_dir=tmp_path) as pipeline:
        LoadBatchResults(task=generation_task(), run_name="numbers", batch_size=50)
    rows = run(pipeline)
    assert failure_codes_of(rows) == {57: "far"}
    assert [row["id"] for row in rows if row["batch_failure"]] == [57]


def test_another_run_submits_failed_requests_alone(sandbox):
    sandbox.configure(failures=[SEVENTH])
    process_rows(generation_task())
    sandbox.configure(failures=[])
    # A run in a new process counts the occurrences of each request from zero.
    scope_memories.clear()

    rows = process_rows(generation_task())

    assert failure_codes_of(rows) == {}
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [1, 12]
