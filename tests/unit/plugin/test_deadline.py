"""The field `deadline`: in Python, in YAML, and among runtime parameters."""

from __future__ import annotations

import logging
import pickle
import time
from datetime import date, datetime, timedelta, timezone

import pytest
import yaml
from pydantic import ValidationError

from distilabel_openai_batch import AzureOpenAIBatchLLM, OpenAIBatchEmbeddings, OpenAIBatchLLM
from distilabel_openai_batch.engine.deadlines import NO_DEADLINE, Deadline
from distilabel_openai_batch.hooks import step_process
from tests.unit.plugin.stubs import CONNECTION

CLASSES = [OpenAIBatchLLM, AzureOpenAIBatchLLM, OpenAIBatchEmbeddings]
PARIS = timezone(timedelta(hours=1))

# Each value of the field, and the value that YAML, JSON and the signature of a pipeline hold.
VALUES = [
    (None, None),
    (21_600, 21_600.0),
    ("21600", 21_600.0),
    (timedelta(hours=4), 14_400.0),
    ("4h", "4h"),
    (" 1h30m ", "1h30m"),
    ("06:00", "06:00"),
    ("2027-01-31T06:00+01:00", "2027-01-31T06:00+01:00"),
    (datetime(2027, 1, 31, 6, tzinfo=PARIS), "2027-01-31T06:00:00+01:00"),
    (datetime(2027, 1, 31, 6), "2027-01-31T06:00:00"),
]


@pytest.mark.parametrize(("value", "stored"), VALUES, ids=repr)
@pytest.mark.parametrize("model", CLASSES)
def test_a_deadline_is_the_same_in_the_constructor_in_yaml_and_as_a_runtime_parameter(model, value, stored):
    client = model(**CONNECTION, deadline=value)
    assert client.deadline == stored
    dump = yaml.safe_load(yaml.safe_dump(client.dump()))
    assert model.from_dict({**dump, "api_key": "sk-secret"}).deadline == stored
    changed = model(**CONNECTION)
    changed.set_runtime_parameters({"deadline": value})
    assert changed.deadline == stored


def test_yaml_may_hold_an_unquoted_date_time():
    value = yaml.safe_load("deadline: 2027-01-31T06:00:00+01:00")["deadline"]
    assert OpenAIBatchLLM(**CONNECTION, deadline=value).session_settings().deadline == Deadline(
        at=datetime(2027, 1, 31, 6, tzinfo=PARIS).timestamp()
    )


@pytest.mark.parametrize(
    "value",
    ["soon", "", "6am", "24:00", True, date(2027, 1, 31), [6], "0", "0h", 0, -1, "-1", "400d", timedelta(0), {"h": 4}],
    ids=repr,
)
def test_other_values_are_refused_everywhere(value):
    with pytest.raises(ValidationError, match="deadline"):
        OpenAIBatchLLM(**CONNECTION, deadline=value)
    with pytest.raises(ValidationError, match="deadline"):
        OpenAIBatchLLM(**CONNECTION).set_runtime_parameters({"deadline": value})


def test_a_step_keeps_the_moment_that_its_pipeline_fixed(monkeypatch):
    """A step of a later load stage, or on another machine, is loaded hours later and elsewhere."""
    client = OpenAIBatchLLM(**CONNECTION, deadline="06:00")
    now = datetime(2026, 11, 26, 20, 0).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)
    client.begin_run()
    client = pickle.loads(pickle.dumps(client))
    now += 11 * 3_600
    monkeypatch.setattr(step_process, "_running_step", "generate")
    assert client.session_settings().deadline == Deadline(at=datetime(2026, 11, 27, 6).timestamp())
    monkeypatch.setattr(step_process, "_running_step", "")
    assert client.session_settings().deadline.begin() == Deadline(at=datetime(2026, 11, 28, 6).timestamp())


def test_a_client_without_a_deadline_has_none_in_a_step(monkeypatch):
    client = OpenAIBatchLLM(**CONNECTION)
    client.begin_run()
    monkeypatch.setattr(step_process, "_running_step", "generate")
    assert client.session_settings().deadline == NO_DEADLINE


@pytest.mark.parametrize(
    ("value", "level", "line"),
    [
        (960, "INFO", "⏰ Deadline: 16 min 00 s after the requests are planned."),
        ("2001-01-31T06:00", "WARNING", "which has passed. All requests without an answer go to the synchronous"),
    ],
)
def test_load_logs_the_deadline_as_understood(caplog, value, level, line):
    with caplog.at_level(logging.INFO):
        OpenAIBatchLLM(**CONNECTION, deadline=value).load()
    [record] = [record for record in caplog.records if "Deadline" in record.message]
    assert record.levelname == level
    assert line in record.message
