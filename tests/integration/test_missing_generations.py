"""Answers that lack generations: no choices, fewer choices than requested, and choices without text."""

from __future__ import annotations

import json
import logging

import pytest

from distilabel_openai_batch import OpenAIBatchLLM, RequestsFailedError
from distilabel_openai_batch.hooks.failure_columns import output_cells
from distilabel_openai_batch.sandbox import ResultFault
from tests.support.commands import run_command
from tests.support.environment import load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(6)]
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
WAYS = {"in a batch": {}, "synchronously": {"sync_below": 100}}


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
        assert "→ Raise `max_new_tokens`" in caplog.text


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


def test_failures_lists_requests_without_any_generation(sandbox):
    """The `jobs` of the run have as many failed requests."""
    sandbox.add_fault(ResultFault(kind="no_choices", contains="number 3.", times=-1))
    sandbox.add_fault(ResultFault(kind="spend_limit", contains="number 4.", times=-1))
    generate()

    failures = [json.loads(line) for line in run_command("failures", "--jsonl").stdout.splitlines()]
    assert sorted(failure["code"] for failure in failures) == ["length", "missing_choice"]
    [job] = json.loads(run_command("jobs", "--json").stdout)
    assert (job["answered"], job["failed"]) == (4, 2)
