"""Sources of a step's rows: a list, a dataset, a file, or the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import datasets
from distilabel.errors import DistilabelUserError

from distilabel_openai_batch.display.brief_errors import mark_brief

# Loaders of `datasets` by the suffix of a file's name.
_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def load_rows(data: object, config: str | None = None, split: str = "train") -> Sequence[dict[str, Any]]:
    """Load rows.

    Args:
        data: a list of dictionaries, a `datasets.Dataset`, the path of a JSONL, CSV or Parquet file, or the id of a
            dataset on the Hub.
        config: the configuration of a dataset on the Hub.
        split: the split of a dataset on the Hub.

    Returns:
        The rows. A dataset reads a row from the disk when the row is accessed.

    Raises:
        DistilabelUserError: the file is missing, or `data` has no rows.
    """
    if isinstance(data, str | Path):
        suffix = Path(data).suffix.lower()
        if suffix in _LOADERS:
            if not Path(data).exists():
                raise mark_brief(DistilabelUserError(f"`data` names the file '{data}', and there is no such file."))
            data = datasets.load_dataset(_LOADERS[suffix], data_files=str(data), split="train")
        else:
            data = datasets.load_dataset(str(data), config, split=split)
    rows = cast("Sequence[dict[str, Any]]", data)
    if not len(rows):
        message = "`data` has no rows. Pass a list of dictionaries, a dataset, a path or a Hub id."
        raise mark_brief(DistilabelUserError(message))
    return rows


def column_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of rows; those of the first row for a list."""
    return rows.column_names if isinstance(rows, datasets.Dataset) else list(rows[0])


def first_rows(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return the first `count` rows, or all rows if there are fewer."""
    return [rows[index] for index in range(min(count, len(rows)))]


def split_into_groups(rows: Sequence[dict[str, Any]], size: int) -> Iterator[tuple[list[dict[str, Any]], ...]]:
    """Yield row groups of `size` rows, each as the arguments of a Task's `process`; read each group when it is due."""
    for start in range(0, len(rows), size):
        end = min(start + size, len(rows))
        if isinstance(rows, datasets.Dataset):
            columns = rows[start:end]
            yield ([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)],)
        else:
            yield ([rows[index] for index in range(start, end)],)
