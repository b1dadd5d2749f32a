"""Fields and sessions that the LLMs and the embeddings of the Batch API share."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import greenback
from distilabel import envs
from distilabel.constants import SIGINT_HANDLER_CALLED_ENV_NAME
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from pydantic import (
    PrivateAttr,
    SecretStr,
)

from distilabel_openai_batch.api.adapters import find_adapter
from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.azure_addresses import check_azure_address, is_azure_host
from distilabel_openai_batch.api.azure_tokens import PLACEHOLDER_KEY
from distilabel_openai_batch.api.batches import METADATA_VALUE_CHARACTERS
from distilabel_openai_batch.api.extra_fields import ExtraFields
from distilabel_openai_batch.api.retention import Retention
from distilabel_openai_batch.api.secrets import clean_headers, clean_key, split_query
from distilabel_openai_batch.api.transport import Patience, load_client_parts
from distilabel_openai_batch.display.advice import (
    LOAD_AGAIN,
    LOAD_WITH_RESUBMIT,
    RUN_AGAIN,
    SUBMIT_AGAIN,
    RetryWay,
)
from distilabel_openai_batch.display.live import choose_display, pause_seconds, print_notice
from distilabel_openai_batch.display.notices import NoticeError, describe_end, send_notice
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.display.telemetry import telemetry_factories
from distilabel_openai_batch.engine.deadlines import NO_DEADLINE, Deadline, parse_deadline
from distilabel_openai_batch.engine.lanes import Lane, LaneSettings
from distilabel_openai_batch.engine.observer import Observer, ObserverFactory, with_observers
from distilabel_openai_batch.engine.session_pool import Host, SessionPool
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings, SubmissionRun
from distilabel_openai_batch.errors import InvalidSettingError, MissingSettingError
from distilabel_openai_batch.hooks.dataset_card import FollowedSession
from distilabel_openai_batch.hooks.install import install
from distilabel_openai_batch.hooks.step_process import is_dry_run, name_step, random_state_preserved, running_step
from distilabel_openai_batch.hooks.step_reports import follow_session
from distilabel_openai_batch.ledger import files
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.plugin.execution import current_execution
from distilabel_openai_batch.plugin.fields import BatchFields
from distilabel_openai_batch.plugin.program_name import former_program_names, program_name
from distilabel_openai_batch.pricing.budget import Budget
from distilabel_openai_batch.pricing.price_book import OwnPrices, PriceBook, default_own_prices, load_own_prices
from distilabel_openai_batch.text import escape_log_lines

T = TypeVar("T")


class BatchClient(BatchFields):
    """Base of an `LLM` or an `Embeddings` whose requests go through the Batch API: fields and sessions."""

    if TYPE_CHECKING:
        api_key: SecretStr | None

    _sessions: SessionPool | None = PrivateAttr(None)
    _run: SubmissionRun | None = PrivateAttr(None)
    _observer_factories: tuple[ObserverFactory, ...] = PrivateAttr(())
    _progress_of_session: Progress | None = PrivateAttr(None)
    _deadline_of_run: Deadline | None = PrivateAttr(None)
    _steps_of_run: tuple[str, ...] | None = PrivateAttr(None)
    _pause_of_run: float | None = PrivateAttr(None)
    _tasks_after: tuple[str, ...] = PrivateAttr(())
    _answer_columns: frozenset[str] = PrivateAttr(frozenset())
    _check_rows: Callable[[], str] | None = PrivateAttr(None)

    def load(self) -> None:
        """Prepare the calls to the server; no call is made yet.

        Raises:
            MissingSettingError: the API key is missing.
            InvalidSettingError: the API key, a header, the base URL or a number cannot be used.
            BudgetError: `budget` is set, and the price of the model is unknown.
        """
        self.check_access()
        if self.reuse_from and not self.reuse_answers:
            raise InvalidSettingError(
                f"`reuse_answers=False` takes no earlier answer, so `reuse_from={self.reuse_from!r}` has no effect."
                " Leave one of the two out."
            )
        settings = self.session_settings()
        split_query(settings.base_url)
        load_client_parts()
        key = self.api_key
        # distilabel's clients, which this package does not use, require a key.
        self.api_key = key or SecretStr(PLACEHOLDER_KEY)
        try:
            super().load()
        finally:
            self.api_key = key
        name_step(escape_log_lines(self._logger))
        if self.budget is not None and (self._run is None or self._run.submits):
            budget = Budget(self.budget, self.price_book(settings.base_url or ""))
            budget.check_price(str(self.model))
            settings = replace(settings, budget=budget)
        self._log_deadline()
        host = Host(
            logger=self._logger,
            scope_name=partial(_scope_name, self._run),
            observer=self._session_observer,
            interruption=_interruption,
            not_finished=_not_finished,
            execution=current_execution,
            siblings=self._steps_of_run,
            former_names=former_program_names(),
            check_rows=self._check_rows_now,
            pause_seconds=pause_seconds() if self._pause_of_run is None else self._pause_of_run,
            on_end=self._send_end_notice,
        )
        self.use_sessions(SessionPool(settings, host))

    def check_access(self) -> None:
        """Check that the server's address can be used, and that there is a key.

        Raises:
            MissingSettingError: the API key is missing.
            InvalidSettingError: the address is one of Azure that needs `AzureOpenAIBatchLLM`.
        """
        if not self._key():
            variable = self._api_key_env_var
            raise MissingSettingError(
                f"{type(self).__name__} has no API key. Set the environment variable {variable}"
                f" (`export {variable}=…`), or pass `api_key=…`."
            )
        check_azure_address(self.base_url)

    def _key(self) -> str:
        """Return the API key without white space around it; empty if there is none."""
        return self.api_key.get_secret_value().strip() if self.api_key else ""

    def join_submission(self, run: SubmissionRun) -> None:
        """Make the client part of a submission. Call this before `load`.

        Args:
            run: the submission, and the client's part in the submission.
        """
        self._run = run

    def add_observer(self, factory: ObserverFactory) -> None:
        """Add an observer, which receives the events of each session.

        A session serves a step of a pipeline, or one call of `generate` in a script. A pipeline runs each step in a
        process of its own, so the factory is pickled with the step, and called in the process of the step. Neither
        YAML nor the signature of a pipeline contains the factory.

        Args:
            factory: function, or class derived from `Observer`, that takes the scope of the session (its `pipeline`,
                `task`, `base_url` and `label`) and returns an `Observer`. For a pipeline, define the function or class
                at the top level of a module or script.

        Raises:
            TypeError: `factory` cannot be called with one argument.
        """
        try:
            inspect.signature(factory).bind(None)
        except TypeError as error:
            raise TypeError(
                f"add_observer takes a function or a class that is called with the scope, for example"
                f" `add_observer(lambda scope: Watcher())`; {factory!r} is none: {error}"
            ) from None
        self._observer_factories += (factory,)

    def unload(self) -> None:
        """Release the clients and the sessions."""
        self._sessions = None
        super().unload()

    def use_sessions(self, sessions: Any) -> None:
        """Send calls through other sessions, for example through a recorder of an estimate.

        Args:
            sessions: an object with the method `use` of `SessionPool`.
        """
        self._sessions = sessions

    def session_settings(self) -> SessionSettings:
        """Build the settings of a session from the fields, from the environment and from the submission.

        Raises:
            InvalidSettingError: the API key or a header cannot be sent.
        """
        wait, schedule = self._wait_and_schedule()
        wait = self._run.waits if self._run else wait
        adapter = find_adapter(self.base_url or "", self.batch_api)
        return SessionSettings(
            base_url=self.base_url,
            api_key=clean_key(self._key(), f"The API key of {type(self).__name__}"),
            headers=clean_headers(self.default_headers),
            timeout=self.timeout,
            patience=Patience(retries=self.max_retries),
            max_requests=self.max_requests_per_job,
            max_bytes=min(self.max_bytes_per_job, adapter.max_bytes or self.max_bytes_per_job),
            max_attempts=self.max_attempts,
            max_jobs=self.max_jobs,
            jobs=JobSettings(
                completion_window=self.completion_window,
                schedule=schedule,
                metadata={**_metadata(), **(self.batch_metadata or {})},
                wait=wait,
                delete_files=self.delete_files,
                # Azure aims at 24 hours and lets longer jobs go on → they are not cancelled.
                window_binds=not is_azure_host(self.base_url),
            ),
            ledger_dir=files.ledger_directory(self.ledger_dir),
            compress_ledger=self.compress_ledger,
            reuse_answers=self.reuse_answers or self._run is not None,
            reuse_from=self.reuse_from,
            fails_unmatched=self.on_unmatched == "fail",
            deadline=self._current_deadline(),
            lanes=self.lane_settings(wait),
            preflight=self.preflight,
            run=self._run,
            retention=Retention(self.input_expires_after, self.output_expires_after),
            extra_fields=ExtraFields(self.upload_extra or {}, self.batch_extra or {}),
            prices=self._own_prices().text,
            batch_api=self.batch_api,
            endpoint_path=self.endpoint_path,
        )

    def price_book(self, base_url: str) -> PriceBook:
        """Return the prices that `budget`, the log and `estimate` use.

        Args:
            base_url: the server's address.

        Raises:
            InvalidSettingError: `prices`, or its environment variable, states no prices.
        """
        return PriceBook(public_address(base_url), self._own_prices())

    def _own_prices(self) -> OwnPrices:
        return load_own_prices(self.prices) if self.prices else default_own_prices()

    def begin_run(
        self,
        steps: Sequence[str] = (),
        tasks_after: Sequence[str] = (),
        answer_columns: Collection[str] = frozenset(),
    ) -> None:
        """Fix the deadline of a pipeline's run, its pauses and its steps, in the pipeline's process.

        A step's process may begin hours later, on Ray on a machine with another time zone, and has no pipeline and no
        terminal.

        Args:
            steps: the names of all steps of the pipeline.
            tasks_after: the names of the steps with a client that follow the client's step.
            answer_columns: the columns that earlier steps made of answers.
        """
        self._deadline_of_run = self._read_field_deadline().begin()
        self._steps_of_run = tuple(steps)
        self._pause_of_run = pause_seconds()
        self._tasks_after, self._answer_columns = tuple(tasks_after), frozenset(answer_columns)

    @property
    def tasks_after(self) -> tuple[str, ...]:
        """Names of the steps with a client that follow the client's step."""
        return self._tasks_after

    @property
    def answer_columns(self) -> frozenset[str]:
        """Columns that earlier steps of the pipeline made of answers: `None` in them is a failure."""
        return self._answer_columns

    def check_rows_by(self, check: Callable[[], str]) -> None:
        """Call a function before each submission, see `Host.check_rows`."""
        self._check_rows = check

    def _check_rows_now(self) -> str:
        return self._check_rows() if self._check_rows else ""

    def _current_deadline(self) -> Deadline:
        if running_step() and self._deadline_of_run:
            return self._deadline_of_run
        return self._read_field_deadline()

    def _read_field_deadline(self) -> Deadline:
        return NO_DEADLINE if self.deadline is None else parse_deadline(self.deadline)

    def _log_deadline(self) -> None:
        """Log the deadline as it was understood: YAML reads an unquoted `16:00` as a number."""
        if self.deadline is None:
            return
        deadline, now = self._current_deadline().begin(), time.time()
        if deadline.at <= now:
            self._logger.warning(
                f"⚠️ Deadline: {deadline.describe(now)}. All requests without an answer go to the synchronous endpoint,"
                " at full price."
            )
        else:
            self._logger.info(f"⏰ Deadline: {deadline.describe(now)}.")

    def _session_observer(self, scope: ScopeName) -> Observer:
        price_book = self.price_book(scope.base_url)
        retry = replace(_retry_way(self._run), retries_cut=getattr(self, "on_truncated", None) == "retry")
        progress = _progress(self._logger, self._run, scope, price_book, retry, self.ledger_dir)
        self._progress_of_session = progress
        follow_session(FollowedSession(progress, scope, files.ledger_directory(self.ledger_dir)))
        return with_observers(progress, (*self._observer_factories, *telemetry_factories()), scope, self._logger)

    def _send_end_notice(self, scope: ScopeName, error: Exception | None) -> None:
        """Send the notice of `on_end` at the end of a session with requests."""
        counts = self._progress_of_session.counts() if self._progress_of_session else TaskCounts()
        if not self.on_end or not (counts.requests or error):
            return
        try:
            send_notice(self.on_end, describe_end(scope, str(self.model), counts, error))
        except NoticeError as failure:
            self._logger.warning(f"⚠️ {failure}")

    def _wait_and_schedule(self) -> tuple[bool, PollSchedule]:
        return self.wait, PollSchedule(self.min_poll_interval, self.max_poll_interval)

    def lane_settings(self, wait: bool) -> LaneSettings:
        """Return the settings of lanes; a submission that does not wait collects no answers, so it is a batch.

        Args:
            wait: whether jobs are waited for.
        """
        lane: Lane = "batch" if self._run and not wait else self.lane
        return LaneSettings(lane, self._sync_limit(wait), max_concurrency=self.max_concurrency)

    def _sync_limit(self, wait: bool) -> float:
        """Return the number of requests below which a round is synchronous; infinity for a dry run.

        A submission that does not wait collects no answers, so no round of such a submission is synchronous.
        """
        if self._run and not wait:
            return 0
        return float("inf") if is_dry_run() else self.sync_below

    def session(self) -> Any:
        """Open the session that all calls on the running event loop share.

        Returns:
            An asynchronous context manager that yields a `Session`.
        """
        assert self._sessions is not None, "`load` comes first"
        return self._sessions.use()

    def wait_for(self, run: Callable[[], Awaitable[T]]) -> T:
        """Run an asynchronous function to completion, inside or outside an event loop.

        In a row group of a pipeline's step the other row groups go on meanwhile. In a notebook, whose event loop is
        already running, the function runs on another thread. A script gets an event loop for the call.

        Args:
            run: a function that opens a `session`.
        """
        if greenback.has_portal():
            with random_state_preserved():
                return greenback.await_(run())
        if _in_event_loop():
            with anyio.from_thread.start_blocking_portal() as portal:
                return portal.call(run)
        try:
            return anyio.run(run)
        except asyncio.CancelledError:
            # Ctrl+C on Python 3.10: anyio raises a cancellation → restore the KeyboardInterrupt.
            raise KeyboardInterrupt from None


def _metadata() -> dict[str, str]:
    """Return the metadata by which people recognise a batch on the server."""
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


def _scope_name(run: SubmissionRun | None, base_url: str) -> ScopeName:
    """Name the scope: a submission, a step of a pipeline, or a script or notebook, by the name of its file."""
    if run:
        return ScopeName(run.name, "", base_url)
    if pipeline := envs.DISTILABEL_PIPELINE_NAME:
        return ScopeName(pipeline, running_step(), base_url)
    return ScopeName(program_name(), "", base_url)


def _progress(
    logger: logging.Logger,
    run: SubmissionRun | None,
    scope: ScopeName,
    price_book: PriceBook,
    retry: RetryWay,
    ledger_dir: str | None = None,
) -> Progress:
    """Return the observer that logs, and draws bars outside a pipeline.

    Within a pipeline, where the scope has a task or the session takes part in a submission, several processes share one
    terminal, so no bars are drawn.
    """
    is_script = not (scope.task or run)
    bars = choose_display(logger) if is_script else None
    notify = partial(print_notice, logger=logger) if is_script and bars is None else None
    return Progress(logger, price_book, bars, scope.label, retry, notify, ledger_dir)


def _retry_way(run: SubmissionRun | None) -> RetryWay:
    """Return the way to submit requests without an answer again."""
    if run is None:
        return RUN_AGAIN
    if not run.waits:
        return SUBMIT_AGAIN
    return LOAD_AGAIN if run.submits else LOAD_WITH_RESUBMIT


def _not_finished(batch_ids: Sequence[str]) -> Exception:
    """Return the error that ends a step whose jobs are still in progress."""
    error: Exception = DistilabelOfflineBatchGenerationNotFinishedException(jobs_ids=tuple(batch_ids))
    return error


def _interruption(batch_ids: Sequence[str]) -> Exception | None:
    """Return the error to raise after Ctrl+C, which distilabel reports to a step's process by a variable."""
    return _not_finished(batch_ids) if os.getenv(SIGINT_HANDLER_CALLED_ENV_NAME) is not None else None


# Importing this module patches distilabel, see `install`. A step's process imports this module to unpickle the step.
install(BatchClient)
