"""Structured output against the sandbox: generations fit the schema, or are `None` with a reason."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
import types
from typing import Any

import httpx
import jsonschema
import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import (
    APIGenSemanticChecker,
    ArgillaLabeller,
    ComplexityScorer,
    GenerateSentencePair,
    QualityScorer,
    StructuredGeneration,
    TextClassification,
    TextGeneration,
    UltraFeedback,
)
from openai import AsyncOpenAI
from pydantic import ValidationError

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.sandbox import RequestFailure, ResultFault
from tests.support.schemas import (
    ADDRESS,
    ANSWER,
    COUNT,
    FITS,
    MESSAGES,
    Address,
    Mode,
    Node,
    Person,
    schema_of,
    tool_choice,
)

HAS_INSTRUCTOR = importlib.util.find_spec("instructor") is not None


def load_llm(**fields: Any) -> OpenAIBatchLLM:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, **fields)
    llm.load()
    return llm


def make_input(text: str, structured_output: Any = None) -> Any:
    messages = [{"role": "user", "content": text}]
    return messages if structured_output is None else (messages, structured_output)


def generations(outputs: list[dict[str, Any]]) -> list[str | None]:
    return [generation for output in outputs for generation in output["generations"]]


SCHEMAS = [Person, Person.model_json_schema(), Node, Node.model_json_schema(), Address, ANSWER, json.dumps(COUNT)]


def test_each_input_has_its_own_schema_and_mode(sandbox):
    """Nested and recursive schemas, enums, optional parts and unions, as class, dictionary or text, go into one job."""
    formats = [{"schema": schema, "mode": mode} for schema in SCHEMAS for mode in ("json_schema", "tools")]
    formats.append({"schema": ANSWER, "mode": "json_mode"})

    outputs = load_llm().generate(
        [make_input(f"Describe number {i}.", each) for i, each in enumerate(formats)], max_new_tokens=4_000
    )

    for text, each in zip(generations(outputs), formats, strict=True):
        assert text is not None, each
        schema = each["schema"]
        if isinstance(schema, type):
            schema.model_validate_json(text)
        else:
            jsonschema.validate(json.loads(text), json.loads(schema) if isinstance(schema, str) else schema)
    assert len(sandbox.books().batches) == 1


def test_structured_generation_takes_a_schema_from_each_row(sandbox):
    """Rows without a schema, and rows with a schema that OpenAI does not support, keep their places."""
    rows = [
        {"instruction": "First", "structured_output": {"format": "json", "schema": ADDRESS}},
        {"instruction": "Second", "structured_output": {"format": "regex", "schema": "[a-z]+"}},
        {"instruction": "Third", "structured_output": None},
        {"instruction": "Fourth", "structured_output": {"format": "json", "schema": json.dumps(COUNT)}},
    ]
    task = StructuredGeneration(llm=load_llm())
    task.load()

    [output_rows] = task.process([dict(row) for row in rows])

    texts = [row["generation"] for row in output_rows]
    Address.model_validate_json(texts[0])
    assert texts[1] is None
    assert "Third" in texts[2]
    assert set(json.loads(texts[3])) == {"count"}


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (TextClassification(llm=OpenAILLM(model=""), available_labels=["a", "b"]), {"text": "A text"}),
        (TextClassification(llm=OpenAILLM(model=""), available_labels=["a", "b"], n=2), {"text": "A text"}),
        (UltraFeedback(llm=OpenAILLM(model="")), {"instruction": "Why?", "generations": ["So.", "Thus."]}),
        (ComplexityScorer(llm=OpenAILLM(model="")), {"instructions": ["Why?", "How?"]}),
        (QualityScorer(llm=OpenAILLM(model="")), {"instruction": "Why?", "responses": ["So.", "Thus."]}),
        (GenerateSentencePair(llm=OpenAILLM(model=""), action="paraphrase"), {"anchor": "A sentence"}),
        (
            APIGenSemanticChecker(llm=OpenAILLM(model="")),
            {"func_desc": "d", "query": "q", "answers": "[]", "execution_result": "1"},
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_task_uses_its_default_structured_output(sandbox, task, row):
    """`instructor`, which the Task would require, is not needed."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, generation_kwargs={"max_new_tokens": 4_000})
    task = task.model_copy(update={"llm": llm, "use_default_structured_output": True})
    task.load()

    [[output_row]] = task.process([row])

    text = output_row["distilabel_metadata"][f"raw_output_{task.name}"]
    jsonschema.validate(json.loads(text), task.get_structured_output())
    if isinstance(task, TextClassification):
        assert output_row["labels"] == json.loads(text)["labels"]


@pytest.mark.skipif(HAS_INSTRUCTOR, reason="instructor is installed")
def test_other_llms_still_require_instructor():
    """Only Tasks with our LLM run without."""
    task = TextClassification(llm=OpenAILLM(model="gpt-4o-mini", api_key="sk-x"), available_labels=["a"])

    with pytest.raises(ImportError, match="instructor"):
        task.load()


def test_argilla_labeller_runs(sandbox, monkeypatch):
    """The Task sets a schema for each row group after the LLM was loaded."""

    class Suggestion(types.SimpleNamespace):
        def serialize(self):
            return vars(self)

    if importlib.util.find_spec("argilla") is None:
        monkeypatch.setitem(sys.modules, "argilla", types.SimpleNamespace(Suggestion=Suggestion))
    settings = {"type": "rating", "options": [{"value": 1}, {"value": 2}]}
    question = {"name": "stars", "title": "Stars", "description": "How good?", "settings": settings}
    fields = [{"name": "text", "title": "Text", "description": None, "settings": {"type": "text"}}]
    task = ArgillaLabeller(
        llm=OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05), fields=fields, question=question
    )
    task.load()

    [output_rows] = task.process([{"record": {"fields": {"text": text}}} for text in ("Good.", "Bad.")])

    assert all(isinstance(row["suggestion"]["value"], int) for row in output_rows)
    assert len(sandbox.books().batches) == 1


def test_answer_that_does_not_fit_is_fixed_in_the_next_job(sandbox):
    """All such rows share one job; other rows are not submitted again. The statistics include both requests."""
    plain = load_llm(structured_output={"schema": ADDRESS}).generate([make_input("Number 2.")])
    for i in (1, 3):
        sandbox.add_fault(ResultFault(kind="ramble", contains=f"Number {i}."))

    outputs = load_llm(structured_output={"schema": ADDRESS}).generate([make_input(f"Number {i}.") for i in range(5)])

    for text in generations(outputs):
        Address.model_validate_json(text)
    books = sandbox.books()
    assert len(books.batches) == 1 + 2
    assert len(books.billed) == 5 + 2
    assert outputs[2]["generations"] == plain[0]["generations"]
    assert outputs[1]["statistics"]["input_tokens"][0] > 2 * outputs[2]["statistics"]["input_tokens"][0]


@pytest.mark.parametrize(
    ("kind", "asks", "reason"),
    [("ramble", 3, "does not fit the schema: it is not JSON"), ("refuse", 1, "The model refused: I'm sorry")],
)
def test_answer_that_never_fits_is_none_with_the_reason(sandbox, caplog, kind, asks, reason):
    """Only that row has `None`, after `max_retries` retries; a refusal is not retried."""
    sandbox.add_fault(ResultFault(kind=kind, contains="Number 1.", times=-1))
    llm = load_llm(structured_output={"schema": COUNT, "max_retries": 2})

    with caplog.at_level(logging.INFO), CallLog().activate() as log:
        outputs = llm.generate([make_input(f"Number {i}.") for i in range(3)])

    assert [output["generations"] == [None] for output in outputs] == [False, True, False]
    assert outputs[1]["statistics"]["input_tokens"][0] > 0
    assert len(sandbox.books().billed) == 2 + asks
    [outcomes] = log.calls
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False]
    assert reason in str(outcomes[1])
    assert reason in caplog.text
    assert f"2 of 3 requests answered, 1 failed, {asks - 1} retried" in caplog.text


def test_truncated_answer_is_none_without_a_retry(sandbox, caplog):
    """The log names the parameter to raise."""
    llm = load_llm(structured_output={"schema": ADDRESS, "max_retries": 3})

    with caplog.at_level(logging.WARNING):
        outputs = llm.generate([make_input("Number 1.")], max_new_tokens=5)

    assert generations(outputs) == [None]
    assert len(sandbox.books().billed) == 1
    assert "max_new_tokens" in caplog.text


def test_each_generation_of_a_row_is_checked(sandbox):
    """With instructor there would be one generation."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    llm = load_llm(structured_output={"schema": ADDRESS})

    outputs = llm.generate([make_input("Number 1."), make_input("Number 2.")], num_generations=2)

    assert [len(output["generations"]) for output in outputs] == [2, 2]
    for text in generations(outputs):
        Address.model_validate_json(text)
    assert len(sandbox.books().billed) == 2 + 2


def test_second_run_submits_nothing(sandbox):
    """Retries have the same bodies in both runs, and so find their answers."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    inputs = [make_input(f"Number {i}.", {"schema": ADDRESS}) for i in range(3)]
    first = load_llm().generate(inputs)
    billed = len(sandbox.books().billed)
    calls.scope_memories.clear()

    assert load_llm().generate(inputs) == first
    assert len(sandbox.books().billed) == billed == 4


def test_run_without_waiting_advances_one_round_at_a_time(sandbox):
    """In one process too, the first round's answers still belong to the first requests."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    llm = load_llm(structured_output={"schema": COUNT}, wait=False)
    for _ in range(2):
        with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
            llm.generate([make_input("Number 1.")])
        sandbox.settle()

    assert generations(llm.generate([make_input("Number 1.")])) != [None]
    assert len(sandbox.books().billed) == 2


def test_failed_request_stays_failed(sandbox):
    """A failure has no answer to check."""
    sandbox.configure(failures=[RequestFailure(contains="Number 1.", message="Not allowed.")])

    outputs = load_llm(structured_output={"schema": COUNT}).generate([make_input("Number 1."), make_input("Number 2.")])

    assert [text is None for text in generations(outputs)] == [True, False]


def test_agenerate_can_be_awaited_on_its_own(sandbox):
    """A single call returns a fitting answer, and raises for an answer that does not fit."""
    sandbox.add_fault(ResultFault(kind="refuse", contains="Number 1."))
    llm = load_llm(structured_output={"schema": COUNT})

    output = asyncio.run(llm.agenerate(make_input("Number 2.")))

    assert set(json.loads(output["generations"][0])) == {"count"}
    with pytest.raises(RunError, match="The model refused"):
        asyncio.run(llm.agenerate(make_input("Number 1.")))


def test_strings_ignore_the_schema(sandbox):
    """The completions endpoint has no schemas, and `OpenAILLM` ignores the schema there too."""
    output = load_llm(structured_output={"schema": COUNT}).generate(["Once upon a time"])

    assert isinstance(output[0]["generations"][0], str)


def test_field_accepts_a_schema_as_text_and_a_mode_of_instructor():
    """distilabel's own types accept neither."""
    llm = OpenAIBatchLLM(model="m", structured_output={"schema": json.dumps(COUNT), "mode": Mode.TOOLS})

    assert llm.structured_output == {"schema": COUNT, "mode": "tool_call"}
    with pytest.raises(ValidationError):
        OpenAIBatchLLM(model="m", structured_output={"schema": "no JSON"})
    with pytest.raises(ValueError, match="none of"):
        load_llm(structured_output={"schema": COUNT, "mode": "telepathy"}, api_key="sk-x")


def test_dump_holds_the_json_schema_of_a_class():
    """JSON and YAML can hold the schema, which changes with the class; the LLM itself keeps the class."""
    llm = OpenAIBatchLLM(model="m", structured_output={"schema": Person, "mode": None, "max_retries": 3})

    dump = json.loads(json.dumps(llm.dump()))

    assert dump["structured_output"] == {"schema": Person.model_json_schema(), "mode": None, "max_retries": 3}
    assert llm.structured_output["schema"] is Person
    assert OpenAIBatchLLM.from_dict(dump).structured_output == dump["structured_output"]


def test_pipeline_with_a_class_survives_yaml_and_the_cache(sandbox, tmp_path):
    """The pipeline from YAML sends the same requests, and a second run takes its rows from distilabel's cache."""
    with Pipeline(name="addresses", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": f"Number {i}."} for i in range(3)])
        llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, structured_output={"schema": Address})
        load >> TextGeneration(name="generate", llm=llm)
    pipeline.save(tmp_path / "pipeline.yaml", format="yaml")
    read_back = Pipeline.from_yaml(tmp_path / "pipeline.yaml")
    read_back._cache_dir = tmp_path

    rows = pipeline.run()["default"]["train"].to_list()

    for row in rows:
        Address.model_validate_json(row["generation"])
    assert pipeline.run()["default"]["train"].to_list() == rows
    assert len(sandbox.books().billed) == 3
    step, first = (each.dag.get_step("generate")["step"] for each in (read_back, pipeline))
    assert step.signature == first.signature


needs_instructor = pytest.mark.skipif(
    not HAS_INSTRUCTOR, reason="instructor is not installed: 1.17.0 goes with openai 3.3.0"
)


@needs_instructor
@pytest.mark.parametrize(("schema", "text", "expected"), FITS, ids=str)
def test_openaillm_makes_the_same_text_of_the_same_answer(schema, text, expected):
    """Schemas of which distilabel cannot make a class are left out."""
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [tool_choice(text)]}
    for each in body["choices"]:
        each["message"]["role"] = "assistant"
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    llm = OpenAILLM(model="m", base_url="http://127.0.0.1:9/v1", api_key="sk-x", structured_output={"schema": schema})
    llm.load()
    client = AsyncOpenAI(api_key="sk-x", http_client=httpx.AsyncClient(transport=transport))
    llm._aclient = llm._prepare_structured_output({"schema": COUNT}, client, "openai")["client"]

    assert generations(llm.generate([MESSAGES])) == [expected]


@needs_instructor
@pytest.mark.parametrize(
    "schema", [COUNT, ANSWER, schema_of({"home": COUNT | {"title": "Home"}, "on": {"type": "boolean"}})], ids=str
)
def test_openaillm_gives_the_same_generations(sandbox, schema):
    """Both LLMs call the same tool of the same server."""
    inputs = [make_input(f"Number {i}.") for i in range(3)]
    theirs = OpenAILLM(model="gpt-4o-mini", structured_output={"schema": schema})
    theirs.load()

    ours = load_llm(structured_output={"schema": schema, "mode": "tools"})

    assert generations(ours.generate(inputs)) == generations(theirs.generate(inputs))
