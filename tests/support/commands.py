"""Helpers for tests of the command line: run a command, and fill a ledger with runs for it to show."""

from __future__ import annotations

import re
import shlex
import time
from contextlib import closing
from pathlib import Path

import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from typer.testing import CliRunner, Result

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import build_result_line, parse_result_line
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from tests.support.environment import API_KEY, load_as_new_process

PROMPTS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]

CACHED_USAGE = {"prompt_tokens": 2_000, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1_500}}


def run_command(*arguments: object, **options) -> Result:
    """Run a command, and check that the output has no traceback and no key."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert API_KEY not in result.output
    return result


def check_printed_commands(text: str) -> list[str]:
    """Call each command that a log prints, and return the lines of the commands.

    `jobs` takes the place of `ui` and `watch`, which go on: each of the three selects the same scopes.
    """
    lines = re.findall("`(distilabel-openai-batch [^`]+)`", text)
    for line in lines:
        _, name, *arguments = shlex.split(line)
        result = run_command("jobs" if name in ("ui", "watch") else name, *arguments)
        assert result.exit_code == 0, (line, result.output)
    return lines


def generate(prompts=PROMPTS, **fields) -> list[str | None]:
    """Generate with an LLM as a new process has it, and return the texts."""
    llm = load_as_new_process(OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields}))
    return [output["generations"][0] for output in llm.generate(prompts)]


def submit_only(prompts=PROMPTS, **fields) -> None:
    """Submit prompts and end the run without waiting for the answers."""
    with pytest.raises(DistilabelOfflineBatchGenerationNotFinishedException):
        generate(prompts, wait=False, **fields)


def add_scope(directory: Path, *name: str) -> None:
    """Add a scope (pipeline, task, base URL) without jobs to a ledger."""
    with closing(Ledger(directory, ScopeName(*name))) as ledger:
        ledger.submissions.keep_rows([], None)


def adopt_answer(directory: Path, scope: ScopeName, model="mine", usage=CACHED_USAGE, batch_id="batch_mine") -> None:
    """Add a batch with one answer to a ledger; by default the model has no list price."""
    line = build_result_line(f"{'a' * 32}-0", {"model": model, "usage": usage})
    batch = Batch(batch_id, "completed", total=1, created_at=time.time())
    with closing(Ledger(directory, scope)) as ledger:
        ledger.adopted_jobs.add_ended(batch, batch_id, [parse_result_line(line)])
