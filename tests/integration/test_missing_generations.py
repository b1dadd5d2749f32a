"""Answers that lack generations: no choices, fewer choices than requested, and choices without text."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from distilabel_openai_batch import OpenAIBatchEmbeddings, OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.hooks.failure_columns import output_cells
from distilabel_openai_batch.sandbox import Fault, RequestFailure, ResultFault
from tests.support.commands import run_command
from tests.support.environment import load_as_new_process

pytestmark = pytest.mark.usefixtures("small_packs")

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
WAYS = {"in a batch": {}, "synchronously": {"sync_below": 100}}


@pytest.fixture(autouse=True)
def script_name(monkeypatch):
    """Make `asking.py` the script's name, and so the scope's."""
    monkeypatch.setattr(sys, "argv", ["asking.py"])


def generate(num_generations=1, questions=QUESTIONS, **fields) -> list[dict]:
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions, num_generations=num_generations)


def generations_of(outputs) -> list[list[bool]]:
    """Return for each output which of its generations are present; a present generation has text."""
    return [[bool(text) if text is not None else False for text in output["generations"]] for output in outputs]


def codes_of(output) -> list[str | None]:
    return [cell and cell["code"] for cell in output_cells(output, len(output["generations"]))]


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(("kind", "code"), [("no_choices", "missing_choice"), ("spend_limit", "length")])
def test_answer_without_generation_is_a_failed_row(sandbox, caplog, fields, kind, code):
    """The other rows are answered, the log has the reason, and the tokens are counted as billed."""
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))

    with caplog.at_level(logging.INFO):
        outputs = generate(2, **fields)

    assert generations_of(outputs) == [[index != 3] * 2 for index in range(6)]
    assert outputs[3]["generations"] == [None, None]
    assert codes_of(outputs[3]) == [code] * 2
    assert f"1 request failed: {output_cells(outputs[3], 1)[0]['message'].rstrip('.')}" in caplog.text
    assert "5 of 6 requests answered, 1 failed, 0 retried" in caplog.text
    assert outputs[3]["statistics"]["input_tokens"][0] > 0
    if kind == "spend_limit":
        assert '→ Set `on_truncated="retry"`' in caplog.text


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize(
    ("kind", "present", "codes"),
    [
        ("one_choice", [True, False, False], [None, "missing_choice", "missing_choice"]),
        ("spend_limit_once", [False, True, True], ["length", None, None]),
    ],
)
def test_answer_that_lacks_a_generation_keeps_the_others(sandbox, caplog, fields, kind, present, codes):
    """A second run reuses the answer: its other generations were paid for."""
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))

    with caplog.at_level(logging.INFO):
        outputs = generate(3, **fields)

    assert generations_of(outputs) == [present if index == 3 else [True] * 3 for index in range(6)]
    assert outputs[3]["generations"].count(None) == present.count(False)
    assert codes_of(outputs[3]) == codes
    assert "5 of 6 requests answered, 1 failed, 0 retried" in caplog.text

    assert generate(3, **fields) == outputs
    books = sandbox.books()
    assert sum(books.billed_bodies.values()) + books.sync == 6


def test_run_in_which_all_answers_are_empty_keeps_the_rows(sandbox, caplog):
    """All answers were billed, so the run does not end with an error."""
    sandbox.add_fault(ResultFault(kind="spend_limit", times=-1))

    outputs = generate()

    assert [output["generations"] for output in outputs] == [[None]] * 6
    assert "6 requests failed: " in caplog.text


def test_next_run_submits_an_empty_answer_again(sandbox):
    sandbox.add_fault(ResultFault(kind="spend_limit", contains="number 3."))
    first = generate()

    second = generate()

    assert generations_of(second) == [[True]] * 6
    assert [output for index, output in enumerate(second) if index != 3] == first[:3] + first[4:]
    assert sorted(batch["request_counts"]["total"] for batch in sandbox.books().batches) == [1, 6]


def test_text_that_the_token_limit_cuts_is_an_answer(sandbox):
    llm = load_as_new_process(OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.02))
    outputs = llm.generate(QUESTIONS, max_new_tokens=1)

    assert generations_of(outputs) == [[True]] * 6


def test_preflight_reports_a_token_limit_that_leaves_no_text(sandbox):
    """No batch is created."""
    sandbox.add_fault(ResultFault(kind="spend_limit", times=-1))

    with pytest.raises(RequestsFailedError, match=r"raise `max_new_tokens`\.") as raised:
        generate(preflight=True)

    assert raised.value.code == "length"
    assert sandbox.books().batches == []


@pytest.mark.parametrize("mode", ["json_schema", "tools"])
@pytest.mark.parametrize(("kind", "code"), [("no_choices", "missing_choice"), ("spend_limit", "length")])
def test_answer_with_a_schema_and_without_generation_is_a_failed_row(sandbox, mode, kind, code):
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))

    outputs = generate(2, structured_output={"schema": SCHEMA, "mode": mode})

    assert generations_of(outputs) == [[index != 3] * 2 for index in range(6)]
    assert codes_of(outputs[3]) == [code] * 2


@pytest.mark.parametrize(("kind", "present"), [("one_choice", [True, False]), ("spend_limit_once", [False, True])])
def test_answer_with_a_schema_that_lacks_a_generation_keeps_the_others(sandbox, kind, present):
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))

    outputs = generate(2, structured_output={"schema": SCHEMA})

    assert generations_of(outputs) == [present if index == 3 else [True] * 2 for index in range(6)]
    assert [bool(code) for code in codes_of(outputs[3])] == [not is_present for is_present in present]


def test_empty_text_of_the_completions_endpoint_is_a_failed_row(sandbox):
    sandbox.add_fault(ResultFault(kind="spend_limit", contains="number 3.", times=-1))

    outputs = generate(model="gpt-3.5-turbo-instruct", questions=[f"Say number {i}." for i in range(6)])

    assert generations_of(outputs) == [[index != 3] for index in range(6)]


class OwnWay(OpenAIBatchLLM):
    """A subclass with its own `agenerate`."""

    async def agenerate(self, input, num_generations=1, **kwargs):
        """Generate as the parent does."""
        return await super().agenerate(input, num_generations=num_generations, **kwargs)


@pytest.mark.parametrize(
    ("kind", "present"),
    [
        ("no_choices", [False] * 3),
        ("spend_limit", [False] * 3),
        ("one_choice", [True, False, False]),
        ("spend_limit_once", [False, True, True]),
    ],
)
def test_row_of_a_subclass_stays(sandbox, caplog, kind, present):
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))
    llm = load_as_new_process(OwnWay(model="gpt-4o-mini", min_poll_interval=0.02))

    with caplog.at_level(logging.INFO):
        outputs = llm.generate(QUESTIONS, num_generations=3)

    assert generations_of(outputs) == [present if index == 3 else [True] * 3 for index in range(6)]
    assert "5 of 6 requests answered, 1 failed, 0 retried" in caplog.text


def list_failures() -> list[dict]:
    return [json.loads(line) for line in run_command("failures", "--jsonl").stdout.splitlines()]


def list_jobs() -> list[dict]:
    return json.loads(run_command("jobs", "--json").stdout)


CODES = {
    "no_choices": "missing_choice",
    "one_choice": "missing_choice",
    "spend_limit": "length",
    "spend_limit_once": "length",
    "refuse": "refusal",
    "filter": "content_filter",
}


@pytest.mark.parametrize("fields", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("kind", CODES)
def test_failures_lists_each_row_with_a_missing_generation(sandbox, caplog, fields, kind):
    """`jobs` and the summary count the row as failed, in the run that bought the answer and in the next run."""
    sandbox.add_fault(ResultFault(kind=kind, contains="number 3.", times=-1))

    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            outputs = generate(2, **fields)

        [failure] = list_failures()
        assert failure["code"] == CODES[kind]
        assert failure["custom_id"] == output_cells(outputs[3], 2)[0 if kind != "one_choice" else 1]["custom_id"]
        assert "5 of 6 requests answered, 1 failed, 0 retried" in caplog.text
        assert f"1 request failed: {failure['message'].rstrip('.')}" in caplog.text
        jobs = list_jobs()
        assert sum(job["answered"] for job in jobs) == 5
        assert jobs[-1]["failed"] == 1


def test_failures_lists_rows_that_could_not_be_sent(sandbox, caplog):
    """A lone surrogate is no JSON, and a chat without a message is no request; the next run lists each row once."""
    questions = [*QUESTIONS, [{"role": "user", "content": "lone \ud800"}], [], []]

    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            outputs = generate(questions=questions)

        assert [output["generations"][0] is None for output in outputs] == [False] * 6 + [True] * 3
        failures = list_failures()
        cells = [output_cells(output, 1)[0] for output in outputs[6:]]
        assert [failure["custom_id"] for failure in failures] == [cell["custom_id"] for cell in cells]
        assert len({failure["custom_id"] for failure in failures}) == 3
        assert [failure["batch_id"] for failure in failures] == [None] * 3
        assert "6 of 9 requests answered, 3 failed, 0 retried" in caplog.text
        jobs = {job["status"]: (job["requests"], job["answered"], job["failed"]) for job in list_jobs()}
        assert jobs == {"not sent": (3, 0, 3), "completed": (6, 6, 0)}
    assert "not sent" in run_command("jobs").stdout


def test_failures_lists_an_answer_that_does_not_fit_its_schema_until_a_repair(sandbox):
    sandbox.add_fault(ResultFault(kind="ramble", contains="number 3."))
    structured_output = {"schema": SCHEMA, "max_retries": 0}
    generate(structured_output=structured_output)
    assert [failure["code"] for failure in list_failures()] == ["invalid_structured_output"]
    assert [(job["answered"], job["failed"]) for job in list_jobs()] == [(5, 1)]

    outputs = generate(structured_output=structured_output | {"max_retries": 1})

    assert generations_of(outputs) == [[True]] * 6
    assert list_failures() == []
    assert [(job["answered"], job["failed"]) for job in list_jobs()] == [(6, 0), (1, 0)]


def test_failures_lists_an_answer_without_a_vector(sandbox):
    body = {"object": "list", "model": "text-embedding-3-small", "data": [], "usage": {"prompt_tokens": 1}}
    sandbox.add_fault(Fault(call="embeddings", kind="status", status=200, body=body))
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small", min_poll_interval=0.02, sync_below=100)

    assert load_as_new_process(embeddings).encode(["one"]) == [None]

    assert [failure["message"] for failure in list_failures()] == ["The answer has no vector."]


def test_failures_lists_rows_of_a_run_that_ends_with_an_error(sandbox):
    sandbox.configure(failures=[RequestFailure(contains="Say", status=400, code="bad", message="No.")])

    with pytest.raises(RequestsFailedError):
        generate(questions=[*QUESTIONS, []])

    assert len(list_failures()) == 7
