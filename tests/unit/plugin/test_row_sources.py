"""Rows from lists, datasets and files, and their row groups."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from distilabel.errors import DistilabelUserError

from distilabel_openai_batch.display.brief_errors import is_brief
from distilabel_openai_batch.plugin.row_sources import column_names, first_rows, load_rows, split_into_groups

ROWS = [{"instruction": f"Say number {i}.", "id": i} for i in range(5)]


@pytest.fixture(autouse=True)
def cache_of_datasets(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def files(tmp_path):
    """The rows as a file of each kind."""
    dataset = Dataset.from_list(ROWS)
    dataset.to_csv(tmp_path / "rows.csv")
    dataset.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "ROWS.JSON").write_text(json.dumps(ROWS), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl", "ROWS.JSON"])
def test_rows_are_loaded_from_a_file(files, name):
    assert list(load_rows(str(files / name))) == ROWS
    assert list(load_rows(files / name)) == ROWS


def test_list_and_dataset_are_rows_already():
    dataset = Dataset.from_list(ROWS)

    assert load_rows(ROWS) is ROWS
    assert load_rows(dataset) is dataset


def test_other_text_is_the_id_of_a_dataset_on_the_hub(monkeypatch):
    loads = []

    def load_dataset(*args, **kwargs):
        loads.append((args, kwargs))
        return Dataset.from_list(ROWS)

    monkeypatch.setattr("datasets.load_dataset", load_dataset)

    assert list(load_rows("owner/name", "config", "test")) == ROWS
    assert loads == [(("owner/name", "config"), {"split": "test"})]


@pytest.mark.parametrize(("data", "message"), [([], "has no rows"), ("missing.jsonl", "no such file")])
def test_missing_rows_are_an_error(data, message):
    with pytest.raises(DistilabelUserError, match=message) as raised:
        load_rows(data)
    assert is_brief(raised.value)


@pytest.mark.parametrize("rows", [ROWS, Dataset.from_list(ROWS)], ids=["list", "dataset"])
def test_columns_first_rows_and_groups(rows):
    assert column_names(rows) == ["instruction", "id"]
    assert first_rows(rows, 2) == ROWS[:2]
    assert first_rows(rows, 9) == ROWS
    assert list(split_into_groups(rows, 2)) == [(ROWS[:2],), (ROWS[2:4],), (ROWS[4:],)]
