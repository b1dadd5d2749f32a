"""Where a step's rows come from: a list, a dataset, a file, or the Hub; and whether JSON keeps them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import datasets
from distilabel.errors import DistilabelUserError

# What `datasets` reads each kind of file with.
_READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def load_rows(data: object, config: str | None = None, split: str = "train") -> Sequence[dict[str, Any]]:
    """Loads rows.

    Args:
        data: a list of dictionaries, a `datasets.Dataset`, the path of a JSONL, CSV or Parquet file, or the id of a
            dataset on the Hub.
        config: the configuration of a dataset on the Hub.
        split: the split of a dataset on the Hub.

    Returns:
        The rows, of which a dataset's are read when they are asked for.

    Raises:
        DistilabelUserError: there are none.
    """
    if isinstance(data, str | Path):
        suffix = Path(data).suffix.lower()
        if suffix in _READERS:
            if not Path(data).exists():
                raise DistilabelUserError(f"`data` names the file '{data}', and there is no such file.")
            data = datasets.load_dataset(_READERS[suffix], data_files=str(data), split="train")
        else:
            data = datasets.load_dataset(str(data), config, split=split)
    rows = cast("Sequence[dict[str, Any]]", data)
    if not len(rows):
        raise DistilabelUserError("`data` has no rows. Pass a list of dictionaries, a dataset, a path or a Hub id.")
    return rows


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns that rows have."""
    return rows.column_names if isinstance(rows, datasets.Dataset) else list(rows[0])


def first(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first rows, at most so many."""
    return [rows[index] for index in range(min(count, len(rows)))]


def groups(rows: Sequence[dict[str, Any]], size: int) -> list[tuple[list[dict[str, Any]], ...]]:
    """Cuts rows into groups, each as the arguments of a Task's `process`."""
    return [
        ([rows[index] for index in range(start, min(start + size, len(rows)))],) for start in range(0, len(rows), size)
    ]
