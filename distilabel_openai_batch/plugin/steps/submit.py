"""`SubmitBatch`: submit a Task's requests, and end without waiting for their jobs."""

import os
from collections.abc import Collection
from typing import Any

import orjson
from anyio.from_thread import start_blocking_portal
from distilabel import envs
from distilabel.constants import SIGINT_HANDLER_CALLED_ENV_NAME
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.steps import GlobalStep, StepInput
from distilabel.typing import StepOutput
from pydantic import Field

from distilabel_openai_batch.engine.session import Session
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks.row_codec import survives_json
from distilabel_openai_batch.hooks.row_groups import process_side_by_side
from distilabel_openai_batch.hooks.step_process import PIPELINE_STOPPING_ERRORS, is_dry_run, mark_stopped
from distilabel_openai_batch.plugin.public_class import public_class
from distilabel_openai_batch.plugin.row_sources import split_into_groups
from distilabel_openai_batch.plugin.steps.base import JSON_OPTIONS, Rows, TaskStep


def row_to_json(step_name: str, task_columns: Collection[str], row: dict[str, Any]) -> bytes:
    """Encode a row as JSON, the form in which the ledger and the server keep the row.

    Args:
        step_name: name of the step, for errors.
        task_columns: names of the columns that requests are made of.
        row: the row.

    Raises:
        RunError: JSON cannot hold a value, or changes a value that a request is made of.
    """
    for column, value in row.items():
        try:
            encoded = orjson.dumps(value, option=JSON_OPTIONS)
        except orjson.JSONEncodeError as error:
            raise RunError(
                f"'{step_name}' keeps its rows as JSON, which cannot hold the column '{column}': {error}. Turn the"
                " column into text, or drop the column, in a step before. Nothing was submitted."
            ) from None
        if column in task_columns and not survives_json(value):
            decoded = orjson.loads(encoded)
            raise RunError(
                f"'{step_name}' keeps its rows as JSON, which turns {value!r:.80} of the column '{column}' into"
                f" {decoded!r:.80}: LoadBatchResults would look for other requests. Turn the column into text in a step"
                " before. Nothing was submitted."
            )
    return orjson.dumps(row, option=JSON_OPTIONS)


@public_class
class SubmitBatch(TaskStep, GlobalStep):
    """Step that submits a Task's batch jobs for its rows, and ends without waiting for them.

    `LoadBatchResults` collects the answers, in another pipeline, on another day, on another machine. Submitting the
    same rows again submits no request twice. A Task that calls its LLM in several rounds is submitted round by round:
    run the pipeline again when the jobs have ended. The rows are kept in the ledger, and on the server beside the input
    files.

    {fields}

    Input columns:
        - dynamic (the columns that the Task needs; other columns are kept too).

    Output columns:
        - run_name (`str`): name of the submission for `LoadBatchResults`, and name of the scope on the command line.
        - batch_id (`str`): id of the batch on the server.
        - requests (`int`): number of requests in the job.
        - bytes (`int`): size of the job's input file.
        - status (`str`): status of the batch on the server.
        - base_url (`str`): address of the server.

    Categories:
        - text-generation

    Examples:
        Submit now:

        ```python
        from distilabel.pipeline import Pipeline
        from distilabel.steps import LoadDataFromDicts
        from distilabel.steps.tasks import TextGeneration
        from distilabel_openai_batch import OpenAIBatchLLM, SubmitBatch

        with Pipeline(name="submitting") as pipeline:
            load = LoadDataFromDicts(data=[{"instruction": "Why is the sky blue?"}])
            load >> SubmitBatch(task=TextGeneration(llm=OpenAIBatchLLM(model="gpt-6-luna")), run_name="sky")

        if __name__ == "__main__":
            jobs = pipeline.run()
        ```
    """

    run_name: RuntimeParameter[str] | None = Field(
        default=None,
        description=(
            "Name by which `LoadBatchResults` finds the submission. `None`: the names of the pipeline and of the step,"
            " with a slash between them."
        ),
    )

    @property
    def inputs(self) -> dict[str, bool]:
        """Columns that the Task reads, and whether each is required."""
        return dict(self.task.get_inputs())

    @property
    def outputs(self) -> list[str]:
        """Columns of the row that describes a job."""
        return ["run_name", "batch_id", "requests", "bytes", "status", "base_url"]

    def _submission(self) -> SubmissionRun:
        return SubmissionRun(self._name(), waits=False, submits=True)

    def process(self, inputs: StepInput) -> "StepOutput":
        """Submit the jobs for the rows.

        Args:
            inputs: the rows.

        Yields:
            A row for each job.

        Raises:
            RunError: the run cannot go on, or JSON cannot hold a row.
        """
        try:
            with start_blocking_portal() as portal:
                yield portal.call(self._submit, list(inputs))
        except PIPELINE_STOPPING_ERRORS:
            mark_stopped(self)
            raise

    async def _submit(self, rows: Rows) -> Rows:
        lines = [row_to_json(str(self.name), self.inputs, row) for row in rows]
        session: Session
        async with self.task.llm.session() as session:
            await session.submission.keep_rows(lines, replace=not is_dry_run())
            try:
                await process_side_by_side(
                    self.task, self.task.llm, split_into_groups(rows, self.task.input_batch_size), lambda *_: None
                )
            except DistilabelOfflineBatchGenerationNotFinishedException:
                # Jobs in progress are the normal end of this step; after Ctrl+C the pipeline has to stop.
                if SIGINT_HANDLER_CALLED_ENV_NAME in os.environ:
                    raise
            return [
                {
                    "run_name": self._name(),
                    "batch_id": job.batch_id,
                    "requests": job.requests,
                    "bytes": job.bytes,
                    "status": job.status,
                    "base_url": session.base_url,
                }
                for job in await session.submission.jobs()
            ]

    def _name(self) -> str:
        pipeline = envs.DISTILABEL_PIPELINE_NAME
        return self.run_name or (f"{pipeline}/{self.name}" if pipeline else str(self.name))
