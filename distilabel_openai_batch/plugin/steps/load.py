"""`LoadBatchResults`: yield the results of a submission as its jobs end."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, List  # noqa: UP035

import orjson
from anyio.from_thread import start_blocking_portal
from distilabel.errors import DistilabelUserError
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps import GeneratorStep
from pydantic import Field, PrivateAttr, model_validator
from typing_extensions import Self

from distilabel_openai_batch.api.outcomes import OTHER_BATCH
from distilabel_openai_batch.display.brief_errors import mark_brief
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.step_process import is_dry_run
from distilabel_openai_batch.plugin.public_class import public_class
from distilabel_openai_batch.plugin.row_sources import column_names, first_rows, split_into_groups
from distilabel_openai_batch.plugin.steps.base import (
    Rows,
    TaskStep,
    check_columns,
    process_row_groups,
    split_into_batches,
)

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput

FAILURE_COLUMN = "batch_failure"
"""Column of `LoadBatchResults` with the reason for a missing answer; `None` in rows with an answer."""


@public_class
class LoadBatchResults(TaskStep, GeneratorStep):
    """Step that yields the rows of `SubmitBatch`, with the Task's output columns, as their jobs end.

    The Task must be the one that the rows were submitted for. Rows and answers come from the ledger; on another
    machine, where the ledger lacks them, they come from the server. Loading buys nothing, unless `resubmit` is set.
    Loading again yields the same rows.

    {fields}

    Output columns:
        - dynamic (the columns of the rows, and the Task's output columns).
        - batch_failure (`str`): reason for a missing answer; `None` in rows with an answer.

    Categories:
        - load
        - text-generation

    Examples:
        Load a submission:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import KeepColumns
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM

        with Pipeline(name="loading") as pipeline:
            load = LoadBatchResults(task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-6-luna")), run_name="sky")
            load >> KeepColumns(columns=["instruction", "generation", "batch_failure"])

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    run_name: RuntimeParameter[str] | None = Field(
        default=None, description="The `run_name` of `SubmitBatch`. Required without `batch_ids`."
    )
    # Python 3.10: distilabel mistakes `list[str]` for a class → `List`.
    batch_ids: RuntimeParameter[List[str]] | None = Field(  # noqa: UP006
        default=None,
        description="Batch ids of the submission, in place of `run_name`: only the rows of these jobs are yielded.",
    )
    resubmit: RuntimeParameter[bool] = Field(
        default=False,
        description=(
            "Submit requests without an answer again, in new jobs that are awaited. With `False` their rows have"
            " `None`s."
        ),
    )
    ordered: RuntimeParameter[bool] = Field(
        default=True,
        description="Yield rows in the order of their submission. With `False` rows are yielded as jobs end.",
    )

    _loaded_rows: Rows | None = PrivateAttr(None)
    _submission_name: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        """Refuse `run_name` together with `batch_ids`, and empty `batch_ids`."""
        if self.run_name and self.batch_ids:
            raise ValueError("LoadBatchResults takes `run_name` or `batch_ids`, not both: leave one of them out.")
        if self.batch_ids is not None and not self.batch_ids:
            raise ValueError("`batch_ids` is empty: name at least one batch, or pass `run_name=…`.")
        return self

    @property
    def outputs(self) -> list[str]:
        """Columns of the rows, output columns of the Task, and the column with the reason for a missing answer.

        Raises:
            DistilabelUserError: `run_name` and `batch_ids` are missing, or the rows lack a column of the Task.
            RunError: neither the ledger nor the server has the rows.
        """
        columns = column_names(self._rows())
        check_columns(str(self.name), self.task, columns)
        return list(dict.fromkeys([*columns, *self.task.get_outputs(), FAILURE_COLUMN]))

    def _submission(self) -> SubmissionRun:
        return SubmissionRun(
            self._resolve_name(), waits=True, submits=self.resubmit, only_batches=tuple(self.batch_ids or ())
        )

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """Yield the submitted rows with the Task's output columns.

        Args:
            offset: number of rows to skip. With `ordered=False` only `0` names definite rows.

        Yields:
            A batch of rows, and whether the batch is the last one.

        Raises:
            RunError: the run cannot go on.
        """
        source: Sequence[dict[str, Any]] = self._rows()
        # The lookup finds out which rows belong to `batch_ids`, and is free → a dry run then looks up all rows.
        if is_dry_run() and (self.resubmit or not self.batch_ids):
            source = first_rows(source, self.batch_size)
        row_groups = split_into_groups(source, self.task.input_batch_size)
        # `batch_failure` is always present, the column of `add_failures` only on request → record reasons anyway.
        explaining_llm = self.task.llm.model_copy(update={"add_failures": True})
        task = self.task.model_copy(update={"llm": explaining_llm})
        with closing(process_row_groups(task, row_groups, self.ordered, FAILURE_COLUMN)) as processed:
            yield from split_into_batches(map(self._format_reasons, processed), self.batch_size, offset)

    def _format_reasons(self, rows: Rows) -> Rows:
        """Turn the reason of each row into text, and drop the rows of other batches."""
        column = failure_columns.column_name(self.task.name) if self.task.llm.add_failures else None
        return [
            row
            | ({column: row[FAILURE_COLUMN]} if column else {})
            | {FAILURE_COLUMN: failure_columns.cell_text(row[FAILURE_COLUMN])}
            for row in rows
            if not (row[FAILURE_COLUMN] and row[FAILURE_COLUMN]["code"] == OTHER_BATCH.code)
        ]

    def _resolve_name(self) -> str:
        """Return `run_name`, or the name of the submission that the first of `batch_ids` belongs to."""
        if self._submission_name is None:
            if not (self.run_name or self.batch_ids):
                raise mark_brief(
                    DistilabelUserError(
                        f"'{self.name}' has neither `run_name` nor `batch_ids`. Pass `run_name=…` as in SubmitBatch, or"
                        " `batch_ids=[…]` that SubmitBatch yielded."
                    )
                )
            ids = self.batch_ids or []
            self._submission_name = self.run_name or str(
                self._query("", lambda session: session.submission.name_of(ids[0]))
            )
        return self._submission_name

    def _rows(self) -> Rows:
        if self._loaded_rows is None:
            lines = self._query(self._resolve_name(), lambda session: session.submission.rows())
            self._loaded_rows = [orjson.loads(line) for line in lines]
        return self._loaded_rows

    def _query(self, run_name: str, query: Callable[[Session], Any]) -> Any:
        """Run a query in a session of its own: distilabel reads `outputs` before it loads the step."""
        llm = self.task.llm.model_copy()
        llm.join_submission(
            SubmissionRun(run_name, waits=False, submits=False, only_batches=tuple(self.batch_ids or ()))
        )
        llm.load()

        async def run_query() -> Any:
            async with llm.session() as session:
                return await query(session)

        with start_blocking_portal() as portal:
            return portal.call(run_query)
