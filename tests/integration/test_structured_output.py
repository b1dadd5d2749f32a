"""Structured output: schemas go out in the API's terms, and what comes back fits them or is `None` with a reason."""

from __future__ import annotations

import asyncio
import enum
import importlib.util
import json
import logging
import sys
import types
from typing import Any, Literal, Optional, Union

import httpx
import jsonschema
import pytest
from datasets import Dataset
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
from pydantic import BaseModel, Field, ValidationError, field_validator

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.sandbox import RequestFailure, ResultFault
from distilabel_openai_batch.structured_output.repair import Exchange
from distilabel_openai_batch.structured_output.schema import Rejection, read
from distilabel_openai_batch.structured_output.strict import strict

HAS_INSTRUCTOR = importlib.util.find_spec("instructor") is not None


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: Optional[int] = None  # noqa: UP045  # as users of Python 3.9 write it


class Person(BaseModel):
    """Somebody, with a bit of everything."""

    name: str = Field(description="In full.")
    born: int = Field(ge=1900, le=2025)
    colour: Colour = Colour.RED
    kind: Literal["friend", "foe"]
    home: Address
    work: Address | None = None
    contact: Union[int, str, Address]  # noqa: UP007
    scores: list[float]


class Node(BaseModel):
    label: str
    children: list[Node] = []


class Even(BaseModel):
    """One that knows more than its JSON schema says."""

    value: int

    @field_validator("value")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value


class Mode(enum.Enum):
    """As instructor has them, which cannot be imported here."""

    TOOLS = "tool_call"


def schema_of(properties: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"title": "Thing", "type": "object", "properties": properties, "required": list(properties)} | rest


WORD = {"type": "string"}
COUNT = schema_of({"count": {"type": "integer"}})
ADDRESS = Address.model_json_schema()
ANSWER = schema_of({"answer": WORD})
MESSAGES = [{"role": "user", "content": "Describe somebody."}]
BODY = {"model": "gpt-4o-mini", "messages": MESSAGES, "n": 1}


def choice(content: str | None = None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish_reason, "message": {"content": content, **message}}


def called(arguments: str) -> dict[str, Any]:
    call = {"id": "call_1", "type": "function", "function": {"name": "Thing", "arguments": arguments}}
    return choice(tool_calls=[call])


@pytest.mark.parametrize(
    "schema",
    [
        COUNT,
        ADDRESS,
        schema_of({"words": {"type": "array", "items": WORD, "minItems": 1}}),
        schema_of({"word": {"enum": ["a", "b"]}}, additionalProperties=False),
        schema_of({"word": WORD | {"default": "a", "examples": ["b"]}}, required=[]),
        schema_of({"word": {"type": ["string", "null"]}}, required=[]),
        schema_of({"word": WORD | {"pattern": "^(?:a|b)+$", "format": "date"}}),
        schema_of({"thing": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}}, **{"$defs": {"T": COUNT}}),
    ],
    ids=str,
)
def test_a_schema_that_can_be_strict_is(schema):
    """Every object is closed and every property required; what it says else is kept."""
    made = strict(schema)

    assert made is not None
    assert made["additionalProperties"] is False
    assert made["required"] == list(schema["properties"])
    assert "default" not in str(made)
    jsonschema.Draft202012Validator.check_schema(made)


@pytest.mark.parametrize(
    "schema",
    [
        schema_of({"word": WORD}, required=[]),
        schema_of({"word": WORD}, additionalProperties=True),
        schema_of({"word": WORD}, additionalProperties=WORD),
        schema_of({"word": WORD}, required=["word", "other"]),
        schema_of({"word": WORD}, patternProperties={"^x": WORD}),
        schema_of({"word": WORD | {"minLength": 3}}),
        schema_of({"word": WORD | {"format": "uri"}}),
        schema_of({"word": WORD | {"pattern": "a(?=b)"}}),
        schema_of({"word": {"oneOf": [WORD, {"type": "integer"}]}}),
        schema_of({"words": {"type": "array"}}),
        schema_of({"words": {"type": "array", "prefixItems": [WORD]}}),
        schema_of({"bag": {"type": "object"}}),
        schema_of({"anything": {}}),
        schema_of({"anything": True}),
        schema_of({"lost": {"$ref": "#/$defs/Nowhere"}}),
        schema_of({"deep": {"$ref": "#", "description": "It refers to itself."}}),
        schema_of({"many": {"enum": [f"{i}" for i in range(1_001)]}}),
        {"type": "array", "items": WORD},
        {"anyOf": [COUNT, ANSWER]},
    ],
    ids=str,
)
def test_a_schema_that_strict_would_change_is_sent_as_it_is(schema):
    """With `strict` it would be another one, or be refused."""
    assert strict(schema) is None or "$ref" in str(schema)
    if strict(schema) is None:
        spec = read({"schema": schema}).asked_for(BODY)["response_format"]["json_schema"]
        assert (spec["strict"], spec["schema"]) == (False, schema)


def test_a_schema_is_asked_for_in_each_mode():
    """As a format of the response, as a tool that has to be called, or in the prompt; an own format gives way."""
    body = BODY | {"response_format": {"type": "text"}, "temperature": 0.5}
    closed = ANSWER | {"additionalProperties": False}

    def asked(mode, body=body):
        return read({"schema": ANSWER, "mode": mode}).asked_for(body)

    spec = {"name": "Thing", "schema": closed, "strict": True}
    assert asked(None) == body | {"response_format": {"type": "json_schema", "json_schema": spec}}
    function = {"name": "Thing", "parameters": closed, "strict": True}
    assert asked("tools") == BODY | {
        "temperature": 0.5,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "Thing"}},
    }
    in_words = asked("json")
    assert in_words["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in in_words["messages"]] == ["system", "user"]
    assert json.dumps(ANSWER, separators=(",", ":")) in in_words["messages"][0]["content"]
    with_system = asked("json", BODY | {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]})
    assert [message["role"] for message in with_system["messages"]] == ["system", "user"]
    assert with_system["messages"][0]["content"].startswith("Be brief.\n\nAnswer with one JSON object")


@pytest.mark.parametrize(
    ("title", "name"),
    [("Thing", "Thing"), ("Response[int]", "Response_int_"), ("Größe " * 20, None), ("", "answer"), (3, "answer")],
)
def test_the_name_of_a_schema_is_one_that_the_api_takes(title, name):
    """Whatever its title is."""
    made = read({"schema": {"properties": {"word": WORD}} | ({"title": title} if isinstance(title, str) else {})}).name

    assert made == name or (name is None and len(made) == 64)
    assert all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in made)


@pytest.mark.parametrize(
    ("mode", "meant"),
    [
        (None, "json_schema"),
        ("json_schema_mode", "json_schema"),
        ("tools", "tools"),
        (Mode.TOOLS, "tools"),
        ("function_call", "tools"),
        ("markdown_json_mode", "json_object"),
    ],
)
def test_the_names_of_instructors_modes_are_understood(mode, meant):
    """Also its enum's members."""
    assert read({"schema": COUNT, "mode": mode}).mode == meant


@pytest.mark.parametrize(
    ("structured_output", "reason"),
    [
        ({}, "no `schema`"),
        ("json", "not a dictionary"),
        ({"schema": None}, "no `schema`"),
        ({"schema": "[a-z]+", "format": "regex"}, "'regex', and OpenAI serves 'json' alone"),
        ({"schema": COUNT, "mode": "telepathy"}, "'telepathy', which is none of .*'json_schema'"),
        ({"schema": COUNT, "mode": 3}, "which is none of"),
        ({"schema": COUNT, "max_retries": -1}, "`max_retries` -1"),
        ({"schema": COUNT, "max_retries": "two"}, "`max_retries` 'two'"),
        ({"schema": "{not json"}, "not JSON"),
        ({"schema": "[1]"}, "not a JSON object"),
        ({"schema": {"type": "text"}}, r"not a JSON schema: 'text' .* #/type"),
        ({"schema": {"pattern": "("}}, "not a JSON schema"),
        ({"schema": {"enum": [object()]}}, "cannot be written as JSON"),
        ({"schema": type("Opaque", (BaseModel,), {"__annotations__": {"x": type(iter)}, "model_config": {
            "arbitrary_types_allowed": True}})}, "`Opaque` .* no JSON schema"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_with_a_reason(structured_output, reason):
    """Before anything is bought."""
    with pytest.raises(ValueError, match=reason):
        read(structured_output)


def test_a_schema_that_went_through_a_dataset_is_what_it_was():
    """Its column has the keys of every row's schema, empty where they are another row's."""
    schemas = [COUNT, ANSWER | {"description": "An answer."}, schema_of({"one_of": {"enum": ["a", "b"]}})]
    column = Dataset.from_list([{"structured_output": {"format": "json", "schema": each}} for each in schemas])

    assert [read(each).schema for each in column["structured_output"]] == schemas


def test_a_schema_is_read_once():
    """50,000 rows with the same schema make one validator, whether it comes as a dictionary or as text."""
    first = read({"schema": COUNT, "format": "json"})

    assert read({"schema": json.loads(json.dumps(COUNT))}) is first
    assert read({"schema": Person}) is read({"schema": Person})
    assert read({"schema": COUNT, "mode": "tools"}) is not first


FITS = [
    (COUNT, '{ "count" : 3 }', '{"count":3}'),
    (COUNT, '{"count": 3, "more": 4}', '{"count":3}'),
    (ADDRESS, '{"street": "Größe"}', '{"street":"Größe","number":null}'),
    (Address, '{"number": 3, "street": "A"}', '{"street":"A","number":3}'),
    (schema_of({"x": {"type": "number"}}), '{"x": 1}', '{"x":1.0}'),
    (schema_of({"x": {"type": "integer"}}), f'{{"x": {2**70}}}', f'{{"x":{2**70}}}'),
    (schema_of({"x": {"type": "integer", "default": 3}}, required=[]), "{}", '{"x":null}'),
    (schema_of({"x": {"anyOf": [{"type": "integer"}, WORD]}}), '{"x": "a"}', '{"x":"a"}'),
    (schema_of({"x": {"type": "object"}}), '{"x": {"a": [1, null]}}', '{"x":{"a":[1,null]}}'),
    (schema_of({"x": {"type": "string", "enum": ["a"]}}), '{"x": "a"}', '{"x":"a"}'),
]
# What distilabel cannot make a class of, and `OpenAILLM` refuses.
FITS_OURS_ALONE = [
    (Node, '{"label": "a", "children": [{"label": "b"}]}', '{"label":"a","children":[{"label":"b","children":[]}]}'),
    (Node.model_json_schema(), '{"label": "a", "children": []}', '{"label":"a","children":[]}'),
    ({"type": "object", "properties": {"x": WORD}}, '{"x": "é", "y": 1}', '{"x":"é","y":1}'),
    ({"type": "object", "properties": {"x": {"enum": ["a", 1]}}}, '{"x": 1}', '{"x":1}'),
    ({"title": "Either", "anyOf": [COUNT, ANSWER]}, '{"answer": "a"}', '{"answer":"a"}'),
    ({"title": "List", "type": "array", "items": WORD}, '["a"]', '["a"]'),
    (Even, '{"value": 2}', '{"value":2}'),
]


@pytest.mark.parametrize(("schema", "text", "read_as"), FITS + FITS_OURS_ALONE, ids=str)
def test_an_answer_that_fits_is_written_as_distilabel_writes_it(schema, text, read_as):
    """In either way of answering."""
    wanted = read({"schema": schema})

    assert wanted.read(choice(text)) == read_as
    assert wanted.read(called(text)) == read_as
    assert wanted.read(choice(f"```json\n{text}\n```")) == read_as


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (COUNT, "three", "it is not JSON"),
        (COUNT, '{"count": 3', "it is not JSON"),
        (COUNT, '{"count": NaN}', "it is not JSON"),
        (COUNT, "", "it is empty"),
        (COUNT, None, "it is empty"),
        (COUNT, "[]", r"\$: \[\] is not of type 'object'"),
        (COUNT, "{}", r"\$: 'count' is a required property"),
        (COUNT, '{"count": "3"}', r"\$.count: '3' is not of type 'integer'"),
        (Even, '{"value": "2"}', r"\$.value: Input should be a valid integer"),
        (schema_of({"x": WORD}, additionalProperties=False), '{"x": "a", "y": 1}', "Additional properties"),
        (ADDRESS, '{"street": "A", "number": "none"}', r"\$.number: 'none' is not valid under any"),
        (Address, '{"number": 3}', r"\$.street: Field required"),
        (schema_of({"x": {"type": "string", "enum": ["a"]}}), '{"x": "b"}', "'b' is not one of"),
        (schema_of({"x": {"type": "integer", "minimum": 3}}), '{"x": 2}', "less than the minimum"),
        (schema_of({"x": {"type": "array", "items": WORD, "minItems": 1}}), '{"x": []}', r"\$.x: \[\]"),
        (Node.model_json_schema(), '{"label": "a", "children": [{}]}', r"\$.children\[0\]: 'label' is a required"),
        (Even, '{"value": 3}', r"\$.value: Value error, it is odd"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_asked_again(schema, text, reason):
    """With the reason, in words that the model can use; also where distilabel's class would have let it pass."""
    wanted = read({"schema": schema})

    rejection = wanted.read(choice(text))

    assert isinstance(rejection, Rejection)
    assert rejection.helps
    assert rejection.failure.code == "invalid_structured_output"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejection.failure.message)


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (choice(refusal="I'm sorry."), "refusal", "The model refused: I'm sorry."),
        (choice('{"count": ', finish_reason="length"), "truncated", "max_new_tokens"),
        (choice(None, finish_reason="content_filter"), "content_filter", "withheld"),
    ],
)
def test_an_answer_that_asking_again_would_not_mend_is_not(said, code, reason):
    """A refusal is a refusal, and what was cut would be cut again."""
    rejection = read({"schema": COUNT}).read(said)

    assert not rejection.helps
    assert rejection.failure.code == code
    assert reason in rejection.failure.message


def test_an_answer_that_is_whole_at_the_token_limit_counts():
    """It was paid for, and fits."""
    assert read({"schema": COUNT}).read(choice('{"count": 3}', finish_reason="length")) == '{"count":3}'


def test_a_schema_that_cannot_be_held_against_an_answer_costs_one_answer():
    """Nothing is fetched from elsewhere, and asking again would be for nothing."""
    schema = schema_of({"x": {"$ref": "http://127.0.0.1:9/x"}})

    rejection = read({"schema": schema}).read(choice('{"x": "a"}'))

    assert isinstance(rejection, Rejection)
    assert not rejection.helps


@pytest.mark.parametrize(
    "said", [None, "x", {}, {"message": None}, {"message": {"tool_calls": [None, {"function": 3}]}}]
)
def test_a_choice_that_makes_no_sense_is_asked_again(said):
    """A server's odd answer is no reason to end the run."""
    wanted = read({"schema": COUNT})

    assert wanted.read(said).helps
    assert wanted.asked_again(BODY, said, "It is odd")["messages"][-1]["content"].startswith("It is odd. ")


def test_the_model_is_shown_its_answer_and_told_what_is_wrong():
    """In the way in which it answered; one choice is asked for."""
    wanted = read({"schema": COUNT})

    in_words = wanted.asked_again(BODY | {"n": 3, "seed": 1}, choice("three"), "It is not JSON")
    as_a_tool = wanted.asked_again(BODY, called("three"), "It is not JSON")

    assert (in_words["n"], in_words["seed"]) == (1, 1)
    assert [message["role"] for message in in_words["messages"]] == ["user", "assistant", "user"]
    assert in_words["messages"][1]["content"] == "three"
    assert in_words["messages"][2]["content"].startswith("It is not JSON. ")
    assert [message["role"] for message in as_a_tool["messages"]] == ["user", "assistant", "tool"]
    assert as_a_tool["messages"][2]["tool_call_id"] == "call_1"


def answer(*choices: dict[str, Any], tokens: int = 10) -> Answer:
    return Answer.of({"choices": list(choices), "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})


def contents(outcome: Answer | Failure) -> list[str | None]:
    assert isinstance(outcome, Answer)
    return [each["message"]["content"] for each in outcome.body["choices"]]


def test_only_the_choices_that_do_not_fit_are_asked_again():
    """Each by itself; the tokens of all that was asked are added up."""
    exchange = Exchange(read({"schema": COUNT}), BODY, answer(choice("a"), choice('{"count": 1}'), choice("c")))

    assert [place for place, _ in exchange.due()] == [0, 2]
    exchange.take(0, answer(choice('{"count": 0}'), tokens=20))
    exchange.take(2, answer(choice("still not"), tokens=40))

    assert exchange.due() == []
    assert contents(exchange.outcome) == ['{"count":0}', '{"count":1}', None]
    assert exchange.outcome.tokens == (70, 3)
    assert exchange.failure is not None
    assert exchange.failure.message.startswith("1 of 3 generations: The answer does not fit the schema: it is not JSON")


def test_an_answer_none_of_whose_choices_fits_is_a_failure():
    """Which knows what was paid; a request that fails while asking again is named beside the reason."""
    exchange = Exchange(read({"schema": COUNT}), BODY, answer(choice("a")))
    exchange.take(0, Failure("Too long.", 400))

    assert exchange.outcome == exchange.failure
    assert exchange.outcome.tokens == (10, 1)
    assert "it is not JSON" in str(exchange.outcome)
    assert "Asking again failed: Too long." in str(exchange.outcome)


@pytest.mark.parametrize("body", [{"choices": None}, {"object": "list"}, {"choices": []}], ids=str)
def test_an_answer_without_choices_is_left_as_it_is(body):
    """Whoever reads it says that it is no completion."""
    exchange = Exchange(read({"schema": COUNT}), BODY, Answer.of(body))

    assert (exchange.due(), exchange.failure, exchange.outcome) == ([], None, Answer.of(body))


def loaded(**fields: Any) -> OpenAIBatchLLM:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, **fields)
    llm.load()
    return llm


def asking(text: str, structured_output: Any = None) -> Any:
    messages = [{"role": "user", "content": text}]
    return messages if structured_output is None else (messages, structured_output)


def generations(outputs: list[dict[str, Any]]) -> list[str | None]:
    return [generation for output in outputs for generation in output["generations"]]


SCHEMAS = [Person, Person.model_json_schema(), Node, Node.model_json_schema(), Address, ANSWER, json.dumps(COUNT)]


def test_each_input_has_its_own_schema_and_mode(sandbox):
    """Nested, recursive, with enums, optional parts and unions, as a class, a dictionary or text: all in one job."""
    wanted = [{"schema": schema, "mode": mode} for schema in SCHEMAS for mode in ("json_schema", "tools")]
    wanted.append({"schema": ANSWER, "mode": "json_mode"})

    outputs = loaded().generate(
        [asking(f"Describe number {i}.", each) for i, each in enumerate(wanted)], max_new_tokens=4_000
    )

    for text, each in zip(generations(outputs), wanted, strict=True):
        assert text is not None, each
        schema = each["schema"]
        if isinstance(schema, type):
            schema.model_validate_json(text)
        else:
            jsonschema.validate(json.loads(text), json.loads(schema) if isinstance(schema, str) else schema)
    assert len(sandbox.books().batches) == 1


def test_structured_generation_takes_a_schema_from_each_row(sandbox):
    """Rows without one, and rows that OpenAI cannot serve, stand in their places."""
    rows = [
        {"instruction": "First", "structured_output": {"format": "json", "schema": ADDRESS}},
        {"instruction": "Second", "structured_output": {"format": "regex", "schema": "[a-z]+"}},
        {"instruction": "Third", "structured_output": None},
        {"instruction": "Fourth", "structured_output": {"format": "json", "schema": json.dumps(COUNT)}},
    ]
    task = StructuredGeneration(llm=loaded())
    task.load()

    [made] = task.process([dict(row) for row in rows])

    texts = [row["generation"] for row in made]
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
def test_a_task_has_its_default_structured_output(sandbox, task, row):
    """Without instructor, which the Task would ask for."""
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05, generation_kwargs={"max_new_tokens": 4_000})
    task = task.model_copy(update={"llm": llm, "use_default_structured_output": True})
    task.load()

    [[made]] = task.process([row])

    text = made["distilabel_metadata"][f"raw_output_{task.name}"]
    jsonschema.validate(json.loads(text), task.get_structured_output())
    if isinstance(task, TextClassification):
        assert made["labels"] == json.loads(text)["labels"]


@pytest.mark.skipif(HAS_INSTRUCTOR, reason="instructor is installed")
def test_another_llm_is_still_told_to_install_instructor():
    """Only Tasks of ours do without."""
    task = TextClassification(llm=OpenAILLM(model="gpt-4o-mini", api_key="sk-x"), available_labels=["a"])

    with pytest.raises(ImportError, match="instructor"):
        task.load()


def test_argilla_labeller_works(sandbox, monkeypatch):
    """It sets the schema of each row group after the LLM was loaded."""

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

    [made] = task.process([{"record": {"fields": {"text": text}}} for text in ("Good.", "Bad.")])

    assert all(isinstance(row["suggestion"]["value"], int) for row in made)
    assert len(sandbox.books().batches) == 1


def test_an_answer_that_does_not_fit_is_mended_in_the_next_job(sandbox):
    """All such rows in one job; their neighbours are not asked again, and what was paid is in the statistics."""
    plain = loaded(structured_output={"schema": ADDRESS}).generate([asking("Number 2.")])
    for i in (1, 3):
        sandbox.add_fault(ResultFault(kind="ramble", contains=f"Number {i}."))

    outputs = loaded(structured_output={"schema": ADDRESS}).generate([asking(f"Number {i}.") for i in range(5)])

    for text in generations(outputs):
        Address.model_validate_json(text)
    books = sandbox.books()
    assert len(books.batches) == 1 + 2
    assert len(books.billed) == 1 + 5 + 2
    assert outputs[2]["generations"] == plain[0]["generations"]
    assert outputs[1]["statistics"]["input_tokens"][0] > 2 * outputs[2]["statistics"]["input_tokens"][0]


@pytest.mark.parametrize(
    ("kind", "asks", "reason"),
    [("ramble", 3, "does not fit the schema: it is not JSON"), ("refuse", 1, "The model refused: I'm sorry")],
)
def test_an_answer_that_never_fits_is_none_with_the_reason(sandbox, caplog, kind, asks, reason):
    """In its own row, after as many retries as were allowed; a refusal is not asked again."""
    sandbox.add_fault(ResultFault(kind=kind, contains="Number 1.", times=-1))
    calls.outcomes_seen.set(seen := [])
    llm = loaded(structured_output={"schema": COUNT, "max_retries": 2})

    with caplog.at_level(logging.INFO):
        outputs = llm.generate([asking(f"Number {i}.") for i in range(3)])

    assert [output["generations"] == [None] for output in outputs] == [False, True, False]
    assert outputs[1]["statistics"]["input_tokens"][0] > 0
    assert len(sandbox.books().billed) == 2 + asks
    [outcomes] = seen
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False]
    assert reason in str(outcomes[1])
    assert reason in caplog.text
    assert f"{1 + asks} of {2 + asks} requests answered, 1 failed" in caplog.text


def test_an_answer_that_was_cut_is_none_and_not_asked_again(sandbox, caplog):
    """The log says which parameter to raise."""
    llm = loaded(structured_output={"schema": ADDRESS, "max_retries": 3})

    with caplog.at_level(logging.WARNING):
        outputs = llm.generate([asking("Number 1.")], max_new_tokens=5)

    assert generations(outputs) == [None]
    assert len(sandbox.books().billed) == 1
    assert "max_new_tokens" in caplog.text


def test_each_generation_of_a_row_is_held_against_the_schema(sandbox):
    """Several are several, where instructor makes them one."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    llm = loaded(structured_output={"schema": ADDRESS})

    outputs = llm.generate([asking("Number 1."), asking("Number 2.")], num_generations=2)

    assert [len(output["generations"]) for output in outputs] == [2, 2]
    for text in generations(outputs):
        Address.model_validate_json(text)
    assert len(sandbox.books().billed) == 2 + 2


def test_a_second_run_buys_nothing_again(sandbox):
    """What was asked again has the same questions, and so finds its answers."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    inputs = [asking(f"Number {i}.", {"schema": ADDRESS}) for i in range(3)]
    first = loaded().generate(inputs)
    billed = len(sandbox.books().billed)
    calls._scopes.clear()

    assert loaded().generate(inputs) == first
    assert len(sandbox.books().billed) == billed == 4


def test_a_run_that_does_not_wait_gets_one_round_further_each_time(sandbox):
    """Also in one process: the first round's answers are still those of the first question."""
    sandbox.add_fault(ResultFault(kind="ramble", contains="Number 1."))
    llm = loaded(structured_output={"schema": COUNT}, wait=False)
    for _ in range(2):
        with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
            llm.generate([asking("Number 1.")])
        sandbox.settle()

    assert generations(llm.generate([asking("Number 1.")])) != [None]
    assert len(sandbox.books().billed) == 2


def test_a_failed_request_is_what_it_was(sandbox):
    """It has no answer that could be looked at."""
    sandbox.configure(failures=[RequestFailure(contains="Number 1.", message="Not allowed.")])

    outputs = loaded(structured_output={"schema": COUNT}).generate([asking("Number 1."), asking("Number 2.")])

    assert [text is None for text in generations(outputs)] == [True, False]


def test_agenerate_can_be_awaited_by_itself(sandbox):
    """It gives what fits, and raises where nothing does."""
    sandbox.add_fault(ResultFault(kind="refuse", contains="Number 1."))
    llm = loaded(structured_output={"schema": COUNT})

    output = asyncio.run(llm.agenerate(asking("Number 2.")))

    assert set(json.loads(output["generations"][0])) == {"count"}
    with pytest.raises(RunError, match="The model refused"):
        asyncio.run(llm.agenerate(asking("Number 1.")))


def test_strings_are_not_concerned(sandbox):
    """The completions endpoint knows no schemas, and `OpenAILLM` ignores them there too."""
    output = loaded(structured_output={"schema": COUNT}).generate(["Once upon a time"])

    assert isinstance(output[0]["generations"][0], str)


def test_a_schema_may_be_given_as_text_and_the_mode_as_instructors():
    """distilabel's own types know neither."""
    llm = OpenAIBatchLLM(model="m", structured_output={"schema": json.dumps(COUNT), "mode": Mode.TOOLS})

    assert llm.structured_output == {"schema": COUNT, "mode": "tool_call"}
    with pytest.raises(ValidationError):
        OpenAIBatchLLM(model="m", structured_output={"schema": "no JSON"})
    with pytest.raises(ValueError, match="none of"):
        loaded(structured_output={"schema": COUNT, "mode": "telepathy"}, api_key="sk-x")


def test_a_dump_holds_the_json_schema_of_a_class():
    """So it can be written as JSON and YAML, and changes when the class does; the LLM itself keeps the class."""
    llm = OpenAIBatchLLM(model="m", structured_output={"schema": Person, "mode": None, "max_retries": 3})

    dump = json.loads(json.dumps(llm.dump()))

    assert dump["structured_output"] == {"schema": Person.model_json_schema(), "mode": None, "max_retries": 3}
    assert llm.structured_output["schema"] is Person
    assert OpenAIBatchLLM.from_dict(dump).structured_output == dump["structured_output"]


def test_a_pipeline_with_a_class_goes_through_yaml_and_its_cache(sandbox, tmp_path):
    """The one that was read back asks the same questions, and a further run is answered from distilabel's cache."""
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
@pytest.mark.parametrize(("schema", "text", "read_as"), FITS, ids=str)
def test_openaillm_makes_the_same_text_of_the_same_answer(schema, text, read_as):
    """Whatever the schema is, as long as distilabel can make a class of it."""
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [called(text)]}
    for each in body["choices"]:
        each["message"]["role"] = "assistant"
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    llm = OpenAILLM(model="m", base_url="http://127.0.0.1:9/v1", api_key="sk-x", structured_output={"schema": schema})
    llm.load()
    client = AsyncOpenAI(api_key="sk-x", http_client=httpx.AsyncClient(transport=transport))
    llm._aclient = llm._prepare_structured_output({"schema": COUNT}, client, "openai")["client"]

    assert generations(llm.generate([MESSAGES])) == [read_as]


@needs_instructor
@pytest.mark.parametrize(
    "schema", [COUNT, ANSWER, schema_of({"home": COUNT | {"title": "Home"}, "on": {"type": "boolean"}})], ids=str
)
def test_openaillm_gives_the_same_generations(sandbox, schema):
    """Both call the same tool of the same server."""
    inputs = [asking(f"Number {i}.") for i in range(3)]
    theirs = OpenAILLM(model="gpt-4o-mini", structured_output={"schema": schema})
    theirs.load()

    ours = loaded(structured_output={"schema": schema, "mode": "tools"})

    assert generations(ours.generate(inputs)) == generations(theirs.generate(inputs))
