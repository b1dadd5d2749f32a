"""`StreamBatchResults`: run a Task over rows, and yield the results of each job as soon as the job has ended."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import orjson
from datasets import Dataset
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps import GeneratorStep
from distilabel.typing import GeneratorStepOutput
from pydantic import Field, PrivateAttr

from distilabel_openai_batch.hooks.step_process import is_dry_run
from distilabel_openai_batch.plugin.public_class import public_class
from distilabel_openai_batch.plugin.row_sources import column_names, first_rows, load_rows, split_into_groups
from distilabel_openai_batch.plugin.steps.base import (
    JSON_OPTIONS,
    TaskStep,
    check_columns,
    process_row_groups,
    split_into_batches,
)


@public_class
class StreamBatchResults(TaskStep, GeneratorStep):
    """Step that runs a Task over rows in batch jobs, and yields the results of each job as soon as the job has ended.

    Later steps work while other jobs are still in progress. `max_requests_per_job` of the Task's LLM sets the number of
    rows that arrive together. After a crash the next run takes the answers from the ledger, as with `OpenAIBatchLLM`.

    {fields}

    Output columns:
        - dynamic (the columns of `data`, and the Task's output columns).

    Categories:
        - load
        - text-generation

    Examples:
        Measure generations while later jobs are still running:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import KeepColumns
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import OpenAIBatchLLM, StreamBatchResults

        with Pipeline(name="streaming") as pipeline:
            stream = StreamBatchResults(
                task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-6-luna", max_requests_per_job=1_000)),
                data="instructions.jsonl",
            )
            stream >> KeepColumns(columns=["instruction", "generation"])

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    # Excluded from the dump: distilabel's cached pipeline lacks the rows → the new pipeline's rows are used.
    data: Any = Field(
        default=None,
        exclude=True,
        description=(
            "Rows: a list of dictionaries, a `datasets.Dataset`, the path of a JSONL, CSV or Parquet file, or the id of"
            " a dataset on the Hub. A pipeline's YAML holds a path or an id only."
        ),
    )
    config: RuntimeParameter[str] | None = Field(default=None, description="Configuration of a dataset on the Hub.")
    split: RuntimeParameter[str] = Field(default="train", description="Split of a dataset on the Hub.")
    ordered: RuntimeParameter[bool] = Field(
        default=True, description="Yield rows in the order of `data`. With `False` rows are yielded as jobs end."
    )

    _loaded_rows: Sequence[dict[str, Any]] | None = PrivateAttr(None)
    _rows_hash: str | None = PrivateAttr(None)

    @property
    def outputs(self) -> list[str]:
        """Columns of the rows, and output columns of the Task.

        Raises:
            DistilabelUserError: a column that the Task needs is missing, or `data` has no rows.
        """
        columns = column_names(self.source_rows())
        check_columns(str(self.name), self.task, columns)
        return list(dict.fromkeys([*columns, *self.task.get_outputs()]))

    @property
    def signature(self) -> str:
        """Signature of the step for distilabel's cache, which covers the rows of a list or a dataset too."""
        if self.data is None or isinstance(self.data, str):
            return str(super().signature)
        if self._rows_hash is None:
            self._rows_hash = _hash_rows(self.source_rows())
        return hashlib.sha1(f"{super().signature}{self._rows_hash}".encode(), usedforsecurity=False).hexdigest()

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """Yield the rows with the Task's output columns.

        Args:
            offset: number of rows to skip. With `ordered=False` only `0` names definite rows.

        Yields:
            A batch of rows, and whether the batch is the last one.

        Raises:
            RunError: the run cannot go on.
        """
        source = self.source_rows()
        if is_dry_run():
            source = first_rows(source, self.batch_size)
        # A row group is complete when its last job has ended → no group is larger than a job.
        size = min(self.task.input_batch_size, self.task.llm.max_requests_per_job)
        with closing(process_row_groups(self.task, split_into_groups(source, size), self.ordered)) as row_groups:
            yield from split_into_batches(row_groups, self.batch_size, offset)

    def source_rows(self) -> Sequence[dict[str, Any]]:
        """Return the rows of `data`, loaded once."""
        if self._loaded_rows is None:
            self._loaded_rows = load_rows(self.data if self.data is not None else [], self.config, self.split)
        return self._loaded_rows

    def _model_dump(self, obj: Any, **kwargs: Any) -> dict[str, Any]:
        dump: dict[str, Any] = super()._model_dump(obj, **kwargs)
        return dump | {"data": self.data} if isinstance(self.data, str) else dump


def _hash_rows(source: Sequence[dict[str, Any]]) -> str:
    """Return a hash of the rows; the fingerprint of a dataset."""
    if isinstance(source, Dataset):
        return str(source._fingerprint)
    digest = hashlib.sha256()
    for row in source:
        digest.update(orjson.dumps(row, default=repr, option=JSON_OPTIONS))
    return digest.hexdigest()
