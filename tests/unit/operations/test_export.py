"""Tests of exported answers: fields, JSONL, Parquet, and files that cannot be written."""

from __future__ import annotations

import io
import sys

import orjson
import pyarrow.parquet
import pytest

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import AnswerEntry
from distilabel_openai_batch.operations import export

CHAT = {
    "model": "gpt-4o-mini",
    "choices": [{"message": {"content": "One."}}, {"message": {"content": None}}, {"text": "Two."}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}


def entry(body: dict) -> AnswerEntry:
    return AnswerEntry("a-0", "batch_1", Answer.of(body))


def test_record_has_ids_texts_tokens_and_the_response():
    assert export.record(entry(CHAT)) == {
        "custom_id": "a-0",
        "batch_id": "batch_1",
        "model": "gpt-4o-mini",
        "generations": ["One.", None, "Two."],
        "tokens_in": 7,
        "tokens_out": 3,
        "response": CHAT,
    }


@pytest.mark.parametrize("body", [{}, {"choices": None}, {"data": [{"embedding": [1.0]}]}])
def test_an_answer_without_choices_has_no_generations(body):
    assert export.record(entry(body))["generations"] == []


def test_a_malformed_choice_is_an_empty_generation():
    assert export.record(entry({"choices": ["not a choice"]}))["generations"] == [None]


def test_jsonl_has_a_line_per_answer():
    file = io.BytesIO()
    assert export.write_jsonl([entry(CHAT), entry({})], file) == 2
    assert [orjson.loads(line)["response"] for line in file.getvalue().splitlines()] == [CHAT, {}]


def test_parquet_has_a_row_per_answer_and_a_row_group_per_portion(monkeypatch):
    monkeypatch.setattr(export, "_ROW_GROUP_SIZE", 2)
    file = io.BytesIO()
    assert export.write_parquet(iter([entry(CHAT)] * 3), file) == 3
    parquet = pyarrow.parquet.ParquetFile(io.BytesIO(file.getvalue()))
    assert parquet.num_row_groups == 2
    assert orjson.loads(parquet.read().to_pylist()[2]["response"]) == CHAT


def test_parquet_without_pyarrow_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OpenAIBatchError, match="pip install pyarrow"):
        export.write_parquet([], io.BytesIO())


def test_write_chooses_the_format_by_the_suffix(tmp_path):
    assert export.write([entry(CHAT)], tmp_path / "a.jsonl") == 1
    assert export.write([entry(CHAT)], tmp_path / "a.parquet") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.parquet"]
    with pytest.raises(OpenAIBatchError, match=r"a\.csv cannot be written: its name has to end with \.jsonl or"):
        export.write([], tmp_path / "a.csv")


def test_a_failed_write_keeps_the_earlier_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("earlier")

    def answers():
        yield entry(CHAT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.write(answers(), path)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
