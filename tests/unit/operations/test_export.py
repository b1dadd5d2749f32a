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
    return AnswerEntry("a-0", "batch_1", Answer.of(body), 60.0, 30.0, scope="p/generate")


def test_record_has_ids_texts_tokens_and_the_response():
    assert export.record(entry(CHAT)) == {
        "custom_id": "a-0",
        "batch_id": "batch_1",
        "model": "gpt-4o-mini",
        "generations": ["One.", None, "Two."],
        "tokens_in": 7,
        "tokens_out": 3,
        "response": CHAT,
        "answered_at": 60.0,
        "run_at": 30.0,
        "question": None,
        "scope": "p/generate",
        "replaced": False,
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


def test_an_answer_with_a_lone_surrogate_is_exported(tmp_path):
    """UTF-8 has no lone surrogates, and a server may send an escape sequence of one."""
    line = b'{"custom_id":"a","response":{"status_code":200,"body":{"model":"\\ud800","choices":[{"text":"\\udfff"}]}}}'
    answer = AnswerEntry("a-0", "batch_1", Answer(line, (0, 0)))
    for name in ("a.jsonl", "a.parquet"):
        assert export.write([answer], tmp_path / name) == 1
    assert orjson.loads((tmp_path / "a.jsonl").read_bytes().replace(b"\\ud", b"-"))["generations"] == ["-fff"]
    [row] = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert (row["model"], row["generations"]) == ("\\ud800", ["\\udfff"])


def test_a_prepared_link_is_not_followed(tmp_path):
    """Another user may write the directory: neither a link at the target nor one at a temporary name is followed."""
    path, precious = tmp_path / "a.jsonl", tmp_path / "precious"
    precious.write_text("my data")
    for name in ("a.jsonl", ".a.jsonl.unfinished", ".a.jsonl.tmp", "a.jsonl.tmp"):
        (tmp_path / name).symlink_to(precious)
    export.write([entry(CHAT)], path)
    assert precious.read_text() == "my data"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


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
