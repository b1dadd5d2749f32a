"""Validation in a process that can be killed: the same errors as in this process, and no run that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from distilabel_openai_batch.api.failure_codes import INVALID_STRUCTURED_OUTPUT
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.structured_output import validator
from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.schema import Rejection
from distilabel_openai_batch.structured_output.schema_cost import SchemaCost
from distilabel_openai_batch.structured_output.validator import (
    SchemaValidator,
    ValidationFailedError,
    create_validator,
    describe_errors,
)
from tests.support.schemas import Node, choice

EVIL = "^(a+)+$"
TEXT = "a" * 64 + "!"


def validator_of(schema: dict) -> SchemaValidator:
    return SchemaValidator(schema, SchemaCost(schema))


@pytest.fixture
def short_limit(monkeypatch):
    """Give each slow validation a tenth of a second of computing time, in a fresh process."""
    monkeypatch.setattr(validator, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(validator, "_process", validator._ValidatingProcess())


LOOKAHEAD = r"^(?=.*\d)(?=.*[A-Z]).{4,}$"
VALUES = [
    ({"pattern": "^a+$"}, ["a", "b", 1]),
    ({"pattern": LOOKAHEAD}, ["Ab1c", "abcd", ""]),
    ({"pattern": r"(a)\1"}, ["aa", "ab"]),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, [{"x1": 1}, {"x1": "a", "y": "a"}]),
    ({"patternProperties": {"^x": {}}, "additionalProperties": False}, [{"x": 1}, {"y": 1, "z": 2}]),
    ({"patternProperties": {"^x": {}}, "unevaluatedProperties": False}, [{"x": 1}, {"y": 1}]),
    ({"items": {"pattern": "a"}}, [["b"] * 20]),
    ({"pattern": "é\ud800"}, ["é\ud800", "e"]),
    (Node.model_json_schema(), [{"label": "a", "children": [{"label": 1}]}, {"label": "a", "children": []}]),
]


@pytest.mark.parametrize(("schema", "values"), VALUES, ids=lambda value: None)
def test_the_process_finds_the_errors_that_this_process_finds(schema, values):
    """Retries quote the errors, so that the ledger finds paid retries only by the same words."""
    assert SchemaCost(schema).may_be_slow
    slow = validator_of(schema)
    for value in values:
        assert slow.list_errors(value) == describe_errors(create_validator(schema), value)


EVIL_SCHEMAS = {
    "pattern": ({"type": "string", "pattern": EVIL}, TEXT),
    "pattern of items": ({"items": {"pattern": r"^(\w+\s?)*$"}}, [TEXT]),
    "names": ({"propertyNames": {"pattern": EVIL}}, {TEXT: 1}),
    "pattern properties": ({"patternProperties": {EVIL: {}}}, {TEXT: 1}),
    "additional properties": ({"patternProperties": {EVIL: {}}, "additionalProperties": False}, {TEXT: 1}),
    "unevaluated properties": ({"patternProperties": {EVIL: {}}, "unevaluatedProperties": False}, {TEXT: 1}),
    "look-ahead": ({"pattern": "^(?=x?)(a|a)*$"}, TEXT),
}


def nested(levels: int) -> object:
    return {"child": nested(levels - 1)} if levels else {}


def branching_circle() -> dict:
    return {"properties": {"child": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [*EVIL_SCHEMAS.values(), (branching_circle(), nested(40))],
    ids=[*EVIL_SCHEMAS, "branching circle"],
)
def test_a_validation_that_would_take_years_is_ended(short_limit, schema, value):
    """The next schema is validated, and the next answer to the slow schema is rejected without another wait."""
    slow = validator_of(schema)
    with pytest.raises(ValidationFailedError, match="takes too long"):
        slow.list_errors(value)
    with pytest.raises(ValidationFailedError, match="an earlier answer"):
        slow.list_errors("a")
    assert validator_of({"pattern": "^a$"}).list_errors("a") == []


def test_an_answer_whose_validation_is_ended_costs_its_row_alone(short_limit):
    """No retry is bought: no other answer helps."""
    schema = {"type": "object", "properties": {"word": {"type": "string", "pattern": EVIL}}, "required": ["word"]}
    rejected = parse_structured_output({"schema": schema}).check(choice(f'{{"word": "{TEXT}"}}'))
    assert isinstance(rejected, Rejection)
    assert rejected.failure.code == INVALID_STRUCTURED_OUTPUT
    assert "takes too long" in rejected.failure.message
    assert not rejected.is_repairable


def test_many_slow_schemas_get_less_time_each(short_limit, monkeypatch):
    monkeypatch.setattr(validator, "_MANY", 1)
    seconds = []
    exchange = validator._exchange

    def note_seconds(process, request):
        seconds.append(request["seconds"])
        return exchange(process, request)

    monkeypatch.setattr(validator, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(validator, "_exchange", note_seconds)
    for _ in range(3):
        with pytest.raises(ValidationFailedError):
            validator_of({"pattern": EVIL}).list_errors(TEXT)
    assert seconds == [0.3, 0.1, 0.1]


def test_a_schema_that_cannot_be_applied_is_named(short_limit):
    with pytest.raises(ValidationFailedError, match="missing"):
        validator_of({"$ref": "#/$defs/missing"}).list_errors(1)
    with pytest.raises(ValidationFailedError, match="unterminated subpattern"):
        validator_of({"pattern": "("}).list_errors("a")


def test_a_process_that_ended_while_it_was_idle_is_started_again(short_limit):
    assert validator_of({"pattern": "a"}).list_errors("a") == []
    process = validator._process._process
    process.send_signal(signal.SIGALRM)
    process.wait()
    assert validator_of({"pattern": "b"}).list_errors("b") == []
    assert validator._process._killed == 0


def test_a_process_that_ends_while_it_gets_a_request_is_started_again(short_limit, monkeypatch):
    processes = iter(
        [
            subprocess.Popen(
                [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGALRM)"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        ]
    )
    running_process = validator._process._running_process
    monkeypatch.setattr(validator._process, "_running_process", lambda: next(processes, None) or running_process())
    assert validator_of({"pattern": "a"}).list_errors("a") == []


def test_a_process_that_cannot_run_is_an_error_of_the_run(short_limit, monkeypatch):
    """Otherwise each row would be rejected for a fault of the installation."""
    monkeypatch.setattr(validator, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(RunError, match="exit code 3"):
        parse_structured_output({"schema": {"type": "string", "pattern": "a"}}).check(choice('"a"'))


def test_a_fork_starts_a_process_of_its_own(short_limit, monkeypatch):
    assert validator_of({"pattern": "a"}).list_errors("a") == []
    process = validator._process._process
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        assert validator_of({"pattern": "a"}).list_errors("a") == []
        other = validator._process._process
    assert other is not process
    for started in (process, other):
        started.kill()
        started.communicate()


def test_the_process_ends_with_its_input_and_ignores_ctrl_c():
    process = validator._ValidatingProcess()._running_process()
    reply = validator._exchange(process, {"schema": {"pattern": "a"}, "value": "a", "seconds": 1.0})
    assert reply == {"errors": []}
    process.send_signal(signal.SIGINT)
    assert validator._exchange(process, {"schema": {"pattern": "a"}, "value": "b", "seconds": 1.0})["errors"]
    process.communicate()
    assert process.returncode == 0
