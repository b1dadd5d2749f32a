"""Prompts of answered requests, from the input files on the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

import anyio

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import AnswerEntry, JobEntry
from distilabel_openai_batch.operations.input_files import InputFiles
from distilabel_openai_batch.report.row_texts import prompt_text

_CHUNK = 1_000


def add_questions(
    answers: Iterable[AnswerEntry], jobs: Iterable[JobEntry], files: InputFiles, warn: Callable[[str], None]
) -> Iterator[AnswerEntry]:
    """Yield answers with the prompts of their requests, and download each input file when its first answer comes.

    Args:
        answers: the answers.
        jobs: the jobs of the answers.
        files: the input files.
        warn: receives the reason why a batch has no prompts, once for each batch.
    """
    files_by_batch: dict[str | None, tuple[str, str | None]]
    files_by_batch = {job.batch_id: (job.scope.base_url, job.input_file_id) for job in jobs if job.batch_id}
    remaining = iter(answers)
    while chunk := list(islice(remaining, _CHUNK)):
        for batch_id in dict.fromkeys(entry.batch_id for entry in chunk):
            if file := files_by_batch.pop(batch_id, None):
                try:
                    anyio.run(files.load, *file)
                except OpenAIBatchError as error:
                    warn(f"Batch {batch_id}: {error}")
        lines = files.lines([entry.custom_id for entry in chunk])
        for entry in chunk:
            line = lines.get(entry.custom_id)
            yield replace(entry, question=prompt_text(line) if line else None)
