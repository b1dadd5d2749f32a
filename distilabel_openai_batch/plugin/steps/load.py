"""Steps that run a Task's batch jobs in other ways than blocking until all of them have ended."""

# No `from __future__ import annotations`: distilabel looks for `StepInput` in a function's annotations themselves.

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
from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.hooks import failure_columns
from distilabel_openai_batch.hooks.step_process import is_dry_run
from distilabel_openai_batch.plugin.public_class import public_class
from distilabel_openai_batch.plugin.row_sources import columns, first, groups
from distilabel_openai_batch.plugin.steps.base import _Rows, _RunsATask, check_columns, in_batches, results

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput

FAILURE_COLUMN = "batch_failure"
"""The column of `LoadBatchResults` that says why a row has no answer; `None` where it has one."""


@public_class
class LoadBatchResults(_RunsATask, GeneratorStep):
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
        Load what was submitted:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import KeepColumns
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM

        with Pipeline(name="loading") as pipeline:
            load = LoadBatchResults(task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-4o-mini")), run_name="sky")
            load >> KeepColumns(columns=["instruction", "generation", "batch_failure"])

        if __name__ == "__main__":
            distiset = pipeline.run()
        ```
    """

    run_name: RuntimeParameter[str] | None = Field(
        default=None, description="The `run_name` of `SubmitBatch`. Required without `batch_ids`."
    )
    # distilabel takes `list[str]` for a class on Python 3.10.
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

    _loaded_rows: _Rows | None = PrivateAttr(None)
    _found_name: str | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _names_one_submission(self) -> Self:
        if self.run_name and self.batch_ids:
            raise ValueError("LoadBatchResults takes a `run_name` or `batch_ids`, not both: leave one of them out.")
        if self.batch_ids is not None and not self.batch_ids:
            raise ValueError("`batch_ids` is empty: name at least one job, or pass `run_name=…`.")
        return self

    @property
    def outputs(self) -> list[str]:
        """The columns of the rows, those that the Task adds, and why a row has no answer.

        Raises:
            DistilabelUserError: neither a run nor batches are named, or the Task is not the one that was submitted.
            RunError: the rows are not to be found.
        """
        found = columns(self._rows())
        check_columns(str(self.name), self.task, found)
        return list(dict.fromkeys([*found, *self.task.get_outputs(), FAILURE_COLUMN]))

    def _run(self) -> SubmissionRun:
        return SubmissionRun(self._name(), waits=True, submits=self.resubmit, only_batches=tuple(self.batch_ids or ()))

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        """Yields the rows that were submitted, with the Task's output columns.

        Args:
            offset: how many rows are left out. With `ordered=False` only `0` says which.

        Yields:
            Rows, and whether they are the last ones.

        Raises:
            RunError: the run cannot go on.
        """
        source: Sequence[dict[str, Any]] = self._rows()
        # Which rows are of the batches that were named is seen when they are looked up, and that costs nothing.
        if is_dry_run() and (self.resubmit or not self.batch_ids):
            source = first(source, self.batch_size)
        row_groups = groups(source, self.task.input_batch_size)
        # The column of `add_failures` is the user's to ask for; this one is always there.
        saying_why = self.task.llm.model_copy(update={"add_failures": True})
        task = self.task.model_copy(update={"llm": saying_why})
        with closing(results(task, row_groups, self.ordered, FAILURE_COLUMN)) as found:
            yield from in_batches(map(self._with_texts, found), self.batch_size, offset)

    def _with_texts(self, found: _Rows) -> _Rows:
        """Makes a text of why each row has no answer, and leaves out the rows of other batches."""
        column = failure_columns.column_name(self.task.name) if self.task.llm.add_failures else None
        return [
            row
            | ({column: row[FAILURE_COLUMN]} if column else {})
            | {FAILURE_COLUMN: failure_columns.cell_text(row[FAILURE_COLUMN])}
            for row in found
            if not (row[FAILURE_COLUMN] and row[FAILURE_COLUMN]["code"] == OTHER_BATCH.code)
        ]

    def _name(self) -> str:
        if self._found_name is None:
            if not (self.run_name or self.batch_ids):
                raise DistilabelUserError(
                    f"'{self.name}' does not know what to load. Pass `run_name=…`, which SubmitBatch was given, or"
                    " `batch_ids=[…]`, which it yielded."
                )
            ids = self.batch_ids or []
            self._found_name = self.run_name or str(self._ask("", lambda session: session.submission.name_of(ids[0])))
        return self._found_name

    def _rows(self) -> _Rows:
        if self._loaded_rows is None:
            lines = self._ask(self._name(), lambda session: session.submission.rows())
            self._loaded_rows = [orjson.loads(line) for line in lines]
        return self._loaded_rows

    def _ask(self, run_name: str, question: Callable[[Session], Any]) -> Any:
        """Asks a session of one's own: the columns are wanted before anything is loaded."""
        llm = self.task.llm.model_copy()
        llm.join_submission(
            SubmissionRun(run_name, waits=False, submits=False, only_batches=tuple(self.batch_ids or ()))
        )
        llm.load()

        async def ask() -> Any:
            async with llm.session() as session:
                return await question(session)

        with start_blocking_portal() as portal:
            return portal.call(ask)
