"""What every client of the Batch API has, whatever distilabel takes it for: its fields, and its sessions."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import greenback
from distilabel import envs
from distilabel.constants import SIGINT_HANDLER_CALLED_ENV_NAME
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.mixins.runtime_parameters import RuntimeParameter
from distilabel.models.base_clients.openai import OpenAIBaseClient
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr, field_validator

from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.session_pool import Sessions
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, Run, SessionSettings
from distilabel_openai_batch.errors import MissingSettingError
from distilabel_openai_batch.hooks.install import install
from distilabel_openai_batch.hooks.step_process import is_dry_run, random_state_preserved, running_step
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.budget import Budget
from distilabel_openai_batch.text import did_you_mean

T = TypeVar("T")

_logger = logging.getLogger("distilabel.openai_batch")


class BatchClient(OpenAIBaseClient):
    """The fields and sessions of an `LLM` or an `Embeddings` that asks through the Batch API."""

    completion_window: RuntimeParameter[str] = Field(
        default="24h", description="The time within which the server has to answer a job."
    )
    max_requests_per_job: RuntimeParameter[PositiveInt] = Field(
        default=50_000, description="The requests in one job, at most."
    )
    max_bytes_per_job: RuntimeParameter[PositiveInt] = Field(
        default=200_000_000, description="The bytes of one job's input file, at most."
    )
    max_jobs: RuntimeParameter[PositiveInt] = Field(default=50, description="The jobs in flight at once, at most.")
    max_attempts: RuntimeParameter[PositiveInt] = Field(
        default=3, description="How often one request is put into a job before its row is given up."
    )
    min_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=1.0, description="The seconds between two looks at a job, at least."
    )
    max_poll_interval: RuntimeParameter[PositiveFloat] = Field(
        default=65.0, description="The seconds between two looks at a job, at most."
    )
    wait: RuntimeParameter[bool] = Field(
        default=True, description="Whether to wait for the jobs, or to stop the pipeline until a later run collects."
    )
    reuse_answers: RuntimeParameter[bool] = Field(
        default=True, description="Whether to take the answers that earlier runs of this task were given."
    )
    delete_files: RuntimeParameter[bool] = Field(
        default=False, description="Whether to remove a job's files from the server once the ledger has their content."
    )
    deadline: RuntimeParameter[PositiveFloat] | None = Field(
        default=None,
        description="The seconds after which what a job has not answered is asked synchronously, at full price.",
    )
    sync_below: RuntimeParameter[NonNegativeInt] = Field(
        default=0, description="Fewer requests than these are asked synchronously: at once, and at full price."
    )
    preflight: RuntimeParameter[bool] = Field(
        default=False, description="Whether one request of each model is tried out before the others are submitted."
    )
    add_failures: RuntimeParameter[bool] = Field(
        default=False, description="Whether each row says, in a column of its own, why it has no answer."
    )
    budget: RuntimeParameter[NonNegativeFloat] | None = Field(
        default=None, description="The dollars that may be spent, at most; nothing is submitted that may cost more."
    )
    ledger_dir: RuntimeParameter[str] | None = Field(
        default=None,
        description="Where the ledger is; else `$DISTILABEL_OPENAI_BATCH_DIR` or `~/.cache/distilabel/openai_batch`.",
    )

    _sessions: Sessions | None = PrivateAttr(None)
    _run: Run | None = PrivateAttr(None)

    @field_validator(
        "completion_window",
        "max_requests_per_job",
        "max_bytes_per_job",
        "max_jobs",
        "max_attempts",
        "min_poll_interval",
        "max_poll_interval",
        "wait",
        "reuse_answers",
        "delete_files",
        "sync_below",
        "preflight",
        "add_failures",
        mode="before",
    )
    @classmethod
    def _is_set(cls, value: object) -> object:
        """Refuses `None`, which distilabel's `RuntimeParameter` allows everywhere."""
        if value is None:
            raise ValueError("it cannot be None")
        return value

    def load(self) -> None:
        """Prepares the calls to the server; none is made yet.

        Raises:
            MissingSettingError: there is no API key.
            BudgetError: there is a budget, and the price of the model is not known.
        """
        if not (self.api_key and self.api_key.get_secret_value()):
            variable = self._api_key_env_var
            raise MissingSettingError(
                f"{type(self).__name__} has no API key. Set the environment variable {variable}"
                f" (`export {variable}=…`), or pass `api_key=…`."
            )
        super().load()
        scope_name = partial(_scope_name, self._run)
        settings = self._session_settings()
        if self.budget is not None and (self._run is None or self._run.buys):
            budget = Budget(self.budget, settings.base_url or "")
            budget.check_price(str(self.model))
            settings = replace(settings, budget=budget)
        self._sessions = Sessions(settings, scope_name, self._logger, _interruption, _not_finished)

    def set_runtime_parameters(self, runtime_parameters: dict[str, Any]) -> None:
        """As distilabel's, which passes over a name that it does not know without a word: a misspelt `budget` is none.

        Args:
            runtime_parameters: their values, by name.
        """
        known = self.runtime_parameters_names
        for name in [name for name in runtime_parameters if name not in known]:
            meant = did_you_mean(name, known)
            _logger.warning(f"⚠️ {type(self).__name__} has no runtime parameter `{name}`, and it changes nothing{meant}")
        super().set_runtime_parameters(runtime_parameters)

    def takes_part_in(self, run: Run) -> None:
        """Says, before `load`, that what is asked belongs to a submission.

        Args:
            run: which, and how.
        """
        self._run = run

    def unload(self) -> None:
        """Lets go of the clients."""
        self._sessions = None
        super().unload()

    def _waiting(self) -> tuple[bool, PollSchedule]:
        """Whether jobs are waited for, and when to look at them."""
        return self.wait, PollSchedule(self.min_poll_interval, self.max_poll_interval)

    def _session_settings(self) -> SessionSettings:
        wait, schedule = self._waiting()
        wait = self._run.waits if self._run else wait
        return SessionSettings(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            headers=self.default_headers,
            timeout=self.timeout,
            patience=Patience(retries=self.max_retries),
            max_requests=self.max_requests_per_job,
            max_bytes=self.max_bytes_per_job,
            max_attempts=self.max_attempts,
            max_jobs=self.max_jobs,
            jobs=JobSettings(
                completion_window=self.completion_window,
                schedule=schedule,
                metadata=_metadata(),
                wait=wait,
                delete_files=self.delete_files,
            ),
            ledger_dir=files.directory(self.ledger_dir),
            reuse_answers=self.reuse_answers or self._run is not None,
            deadline=self.deadline,
            sync_below=self._sync_below(waits=wait),
            preflight=self.preflight,
            run=self._run,
        )

    def _sync_below(self, waits: bool) -> float:
        """As the field; a dry run is to answer at once. What is only submitted is not to be answered here."""
        if self._run and not waits:
            return 0
        return float("inf") if is_dry_run() else self.sync_below

    def session(self) -> Any:
        """The connection that calls made on the running event loop share, for as long as the context lasts.

        Returns:
            An asynchronous context manager.
        """
        assert self._sessions is not None, "`load` comes first"
        return self._sessions.use()

    def wait_for(self, run: Callable[[], Awaitable[T]]) -> T:
        """Runs something asynchronous to its end, wherever the caller is.

        In a row group of a pipeline's step the others go on meanwhile. A script has an event loop made for it.

        Args:
            run: what opens a `session`.
        """
        if greenback.has_portal():
            with random_state_preserved():
                return greenback.await_(run())
        if _in_event_loop():
            # A notebook: its own event loop runs already, and another one has to wait elsewhere.
            with anyio.from_thread.start_blocking_portal() as portal:
                return portal.call(run)
        try:
            return anyio.run(run)
        except asyncio.CancelledError:
            # What anyio makes of Ctrl+C on Python 3.10.
            raise KeyboardInterrupt from None


def _metadata() -> dict[str, str]:
    """What a batch shows of where it comes from."""
    metadata = {"description": "distilabel"}
    if name := envs.DISTILABEL_PIPELINE_NAME:
        metadata["distilabel_pipeline_name"] = name[:METADATA_VALUE_CHARACTERS]
    return metadata


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _scope_name(run: Run | None, base_url: str) -> ScopeName:
    """Who asks: a submission, a step of a pipeline, or a script, which has no other name than its file's."""
    if run:
        return ScopeName(run.name, "", base_url)
    if pipeline := envs.DISTILABEL_PIPELINE_NAME:
        return ScopeName(pipeline, running_step(), base_url)
    return ScopeName(Path(sys.argv[0]).name if sys.argv else "", "", base_url)


def _not_finished(batch_ids: Sequence[str]) -> Exception:
    """What ends a step whose jobs go on without it."""
    error: Exception = DistilabelOfflineBatchGenerationNotFinishedException(jobs_ids=tuple(batch_ids))
    return error


def _interruption(batch_ids: Sequence[str]) -> Exception | None:
    """What to raise once Ctrl+C was pressed, which distilabel tells a step's process through the environment."""
    return _not_finished(batch_ids) if os.getenv(SIGINT_HANDLER_CALLED_ENV_NAME) is not None else None


# Importing this module patches distilabel, see `install`. A step's process imports this module to unpickle the step.
install(BatchClient)
