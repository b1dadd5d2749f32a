"""Log lines and bars of a run: an observer that counts requests, jobs, tokens and dollars."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, Outcome, is_billed, usage_of
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.service_tiers import FLEX
from distilabel_openai_batch.display.advice import RUN_AGAIN, RetryWay
from distilabel_openai_batch.display.bars import count_statuses
from distilabel_openai_batch.display.cost_lines import describe_cost
from distilabel_openai_batch.display.event_log import EventLog
from distilabel_openai_batch.display.failure_kinds import FailureKinds, describe_retries
from distilabel_openai_batch.display.job_log import JobLog
from distilabel_openai_batch.display.live import Display
from distilabel_openai_batch.display.pace import Pace
from distilabel_openai_batch.display.parameter_log import ParameterLog
from distilabel_openai_batch.display.reuse_log import ReuseLog
from distilabel_openai_batch.display.run_bars import RunBars
from distilabel_openai_batch.display.sync_log import SyncLog
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.pricing.price_book import PriceBook
from distilabel_openai_batch.pricing.prices import exact_dollars, format_cost
from distilabel_openai_batch.pricing.run_costs import RunCosts
from distilabel_openai_batch.text import duration, message_kind, plural, size

# A poll logs the progress if another tenth of the requests is answered, or after five minutes without a line.
_SECONDS_BETWEEN_LINES = 300.0


class Progress(SyncLog, ParameterLog, ReuseLog, JobLog):
    """Observer that logs the progress of a run, and draws bars on a display.

    Attributes:
        batch_ids: ids of the batches whose answers the run uses, or waits for, in the order of their events.

    Args:
        logger: receives the log lines.
        price_book: the prices at the server; `None` for no prices.
        display: shows bars; `None` for log lines only.
        scope: the scope's name on the command line, for the advice on failures.
        retry: the way to submit the requests without an answer again.
        notify: receives the line about reused answers, for a script whose user sees neither bars nor the log; `None`
            for no such script.
        ledger_dir: directory of the ledger that the user chose; `None` for the default directory.
    """

    def __init__(
        self,
        logger: logging.Logger,
        price_book: PriceBook | None = None,
        display: Display | None = None,
        scope: str = "",
        retry: RetryWay = RUN_AGAIN,
        notify: Callable[[str], None] | None = None,
        ledger_dir: str | None = None,
    ) -> None:
        super().__init__(EventLog(logger, scope, notify, ledger_dir))
        self.batch_ids: dict[str, None] = {}
        self._bars = RunBars(display) if display else None
        self._price_book = price_book or PriceBook("")
        self._costs = RunCosts(self._price_book)
        self._retry = retry
        self._started = time.monotonic()
        self._finished: float | None = None
        self._requests = 0
        self._answers = 0
        self._retries = 0
        self._failed_retries = 0
        self._rejected = 0
        self._jobs = 0
        self._requested_models: dict[str, str] = {}
        self._open_batches: dict[str, Batch] = {}
        # The numbers of retries in batches, by kind (`Request.retry_of`).
        self._retries_in: dict[str, Counter[str]] = {}
        self._early_answers: Counter[str] = Counter()
        self._failures = FailureKinds()
        self._pace = Pace()
        self._logged_tenth = 0
        self._logged_at = self._started

    def on_requested(self, requests: int) -> None:
        """Add to the expected number of requests."""
        self._requests += requests
        self._logged_tenth = min(self._logged_tenth, self._tenths())

    def on_answered(self, requests: int) -> None:
        """Add to the number of answered requests."""
        self._answers += requests

    def on_reused(self, requests: int) -> None:
        """Log the first reused answers, and draw the bars."""
        super().on_reused(requests)
        self._draw()

    def on_batches_reused(self, batch_ids: Sequence[str]) -> None:
        """Note the batches of the reused answers."""
        self.batch_ids.update(dict.fromkeys(batch_ids))

    def on_retried(self, requests: int) -> None:
        """Add to the number of retried requests."""
        self._retries += requests

    def on_resubmitted(self, requests: int) -> None:
        """Count retries of answered requests as retries: a request is counted once, and is pending meanwhile."""
        self._requests -= requests
        self._answers -= requests
        self._retries += requests
        self._pace.restart()

    def on_resubmission_failed(self, requests: int) -> None:
        """Count requests whose retry failed as answered by their first answer."""
        self._answers += requests
        self._failed_retries += requests

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        """Count a failed request under its status code, error code and kind of message.

        A request of a batch that the caller did not select is no request of this run.
        """
        if failure == OTHER_BATCH:
            self._requests -= 1
            return
        self._failures.add(failure, custom_id, failure.status_code, failure.code, message_kind(failure.message))

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        """Count an unusable answer under its error code: nearly every message differs."""
        self._rejected += 1
        self._failures.add(failure, custom_id, failure.code)

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """Log the submission of a job."""
        self._jobs += 1
        self._add_open_batch(batch)
        self._requested_models[batch.id] = shard.requests[0].model
        # Only a run with retries needs to look at each request.
        kinds = Counter(request.retry_of for request in shard.requests if request.retry_of) if self._retries else None
        retries, requests = kinds.total() if kinds else 0, len(shard.requests)
        so_far = f" of {self._requests:,} so far" if requests < self._requests else ""
        contents = [f"{plural(requests, 'request')}{so_far}"] if retries < requests else []
        if kinds:
            self._retries_in[batch.id] = kinds
            contents.append(describe_retries(kinds))
        self._log.info(
            "job_created",
            f"📤 Submitted job {self._jobs}, batch {batch.id}: {', '.join(contents)}, {size(shard.size)}.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
            retries=retries,
            bytes=shard.size,
        )
        self._pace.start(time.monotonic(), self._done())
        self._draw_batch(batch, len(shard.requests))

    def on_job_resumed(self, batch: Batch, requests: int) -> None:
        """Log that the run continues a job."""
        self._add_open_batch(batch)
        self._log.info(
            "job_resumed",
            f"🔁 Continuing batch {batch.id} (status {batch.status}): {plural(requests, 'request')}.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
        )
        self._pace.start(time.monotonic(), self._done())
        self._draw_batch(batch, requests)

    def _add_open_batch(self, batch: Batch) -> None:
        self._open_batches[batch.id] = batch
        self.batch_ids[batch.id] = None

    def on_polled(self, batch: Batch) -> None:
        """Log the progress if another tenth of the requests is answered, or after five minutes without a line."""
        if batch.id not in self._open_batches:
            return
        self._open_batches[batch.id] = batch
        self._draw_batch(batch)
        self._log_progress_if_due()

    def _log_progress_if_due(self) -> None:
        tenth, now = self._tenths(), time.monotonic()
        if tenth > self._logged_tenth or now - self._logged_at >= _SECONDS_BETWEEN_LINES:
            self._logged_tenth, self._logged_at = tenth, now
            self._log_progress(now)

    def _log_progress(self, now: float) -> None:
        answered = self._answered()
        left = self._pace.seconds_left(now, self._done(), self._requests)
        cost = self._costs.total()
        statuses = count_statuses(batch.status for batch in self._open_batches.values())
        kinds = sum((self._retries_in.get(batch_id, Counter()) for batch_id in self._open_batches), Counter[str]())
        retries = f"{describe_retries(kinds)}; " if kinds else ""
        self._log.info(
            "progress",
            f"⏳ {answered:,} of {plural(self._requests, 'request')} answered"
            f" ({100 * answered // max(1, self._requests)} %), {self._failed_so_far():,} failed;"
            f"{f' jobs: {statuses};' if statuses else ''}"
            f" {retries}{duration(now - self._started)}{f', about {duration(left)} left' if left is not None else ''}"
            f"{f'; {format_cost(cost).spent} for the jobs that have ended' if cost else ''}.",
            answered=answered,
            requests=self._requests,
            failed=self._failed_so_far(),
            dollars=exact_dollars(cost),
        )

    def on_early_answers(self, batch: Batch, answers: int) -> None:
        """Count answers that the batch's own count contains too."""
        self._early_answers[batch.id] += answers

    def on_collected(self, batch: Batch, results: JobResults) -> None:
        """Add the billed tokens of a job, and log an early end and lines without a request."""
        # `on_answered` follows for each answer → draw first, else answers count twice.
        self._draw_batch(batch, is_collected=True)
        self._open_batches.pop(batch.id, None)
        if results.answers:
            requested = self._requested_models.pop(batch.id, "")
            self._costs.add(results.model, requested, results.usage, is_sync=False)
        if batch.status != "completed":
            reasons = f": {batch.reasons}" if batch.errors else ""
            self._log.warning(
                "collected",
                f"Batch {batch.id} ended as {batch.status}{reasons}; partial results are kept.",
                batch_id=batch.id,
                status=batch.status,
            )
        if results.stray_lines:
            self._log.warning(
                "collected",
                f"Batch {batch.id} has {plural(results.stray_lines, 'result line')} that match no request.",
                batch_id=batch.id,
                status=batch.status,
            )

    def on_batch_refused(self, batch: Batch) -> None:
        """Remove a batch from the open batches."""
        self._open_batches.pop(batch.id, None)
        self._draw_batch(batch)

    def on_sync_started(self, requests: int, is_flex: bool) -> None:
        """Log the synchronous requests of a large round, and begin to measure their pace."""
        super().on_sync_started(requests, is_flex)
        self._pace.start(time.monotonic(), self._done())

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """Add the billed tokens of a synchronous request, and log the progress."""
        super().on_sync_answered(model, outcome)
        if is_billed(outcome):
            answered_by = str(outcome.body.get("model") or "") if isinstance(outcome, Answer) else ""
            self._costs.add(answered_by, model, usage_of(outcome), is_sync=outcome.tier != FLEX, tier=outcome.tier)
        if self._bars and self._bars.is_due():
            self._draw()
        if self.has_many_sync_requests:
            self._log_progress_if_due()

    def counts(self) -> TaskCounts:
        """Return the numbers of the run so far; another thread may call the method during the run."""
        now, answered, failed = time.monotonic(), self._answered() - self._rejected, self._failed_so_far()
        usage = self._costs.tokens(is_sync=False) + self._costs.tokens(is_sync=True)
        return TaskCounts(
            requests=self._requests,
            answered=answered,
            failed=failed,
            reasons=self._failures.count_by_reason(),
            cut=sum(self._cut.values()),
            retried=self._retries,
            reused=self._reused,
            not_submitted=0 if self._open_batches else max(0, self._requests - answered - failed),
            jobs=self._jobs,
            statuses=Counter(batch.status for batch in list(self._open_batches.values())),
            synchronous=self._sync_requests,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost=self._costs.total(),
            seconds=(self._finished or now) - self._started,
            seconds_left=self._pace.seconds_left(now, answered + failed, self._requests),
        )

    def on_finished(self) -> None:
        """Log failures by kind with advice, the numbers of the run, and the cost."""
        self._finished = time.monotonic()
        cost = self._costs.total()
        summary = self._summary()
        if self._bars:
            texts = format_cost(cost)
            costs = f" {texts.spent}, {texts.saved} less than synchronous." if cost else ""
            self._bars.close(f"{summary}{costs}")
        if self._requests:
            for line in self._failures.lines(self._log.command_line("failures"), self._retry):
                self._log.warning("failures", line)
            self._log_cut(self._answers)
            self._log.info("finished", summary, **self.counts().facts())
            self._log_reused()
            self._log_sync_requests(self._costs.tokens(is_sync=True))
            if cost:
                self._log.info("cost", describe_cost(cost, self._price_book.source))

    def _summary(self) -> str:
        usage = self._costs.tokens(is_sync=False)
        answered = self._answered() - self._rejected
        uncollected = self._answered() - self._answers
        unanswered = self._requests - answered - self._failed()
        pending = f" {unanswered:,} {'pending' if self._open_batches else 'not submitted'}," if unanswered else ""
        return (
            f"🏁 {answered:,} of {plural(self._requests, 'request')} answered"
            f"{f' ({uncollected:,} not collected yet)' if uncollected else ''},"
            f" {self._failed():,} failed,{pending} {self._retries:,} retried;"
            f" {usage.tokens_in:,} tokens in, {usage.tokens_out:,} out"
            f"{f' ({usage.tokens_reasoning:,} for reasoning)' if usage.tokens_reasoning else ''};"
            f" {plural(self._jobs, 'job')};{f' {self._reused:,} reused;' if self._reused else ''}"
            f" {time.monotonic() - self._started:,.1f} s."
        )

    def _draw_batch(self, batch: Batch, requests: int | None = None, is_collected: bool = False) -> None:
        """Draw the bars after a change of a batch; `requests` is the number of its requests when the batch is new."""
        if self._bars:
            self._bars.update(batch, requests, is_collected)
            self._draw()

    def _draw(self) -> None:
        if self._bars:
            self._bars.draw(min(self._requests, self._answered() + self._failed()), self._requests)

    def _failed(self) -> int:
        """Return the number of failed requests; a failed retry leaves its request the first answer."""
        return self._failures.count - self._failed_retries

    def _failed_so_far(self) -> int:
        """Return the number of failed requests, with the failures that open batches count."""
        return self._failed() + sum(batch.failed for batch in list(self._open_batches.values()))

    def _done(self) -> int:
        return self._answered() + self._failed_so_far()

    def _answered(self) -> int:
        """Return the number of answered requests; each open batch adds its own count without the early answers."""
        answers = self._answers + sum(
            max(0, batch.completed - self._early_answers[batch.id]) for batch in list(self._open_batches.values())
        )
        # Several choices of one answer may be retried at the same time.
        return max(0, answers)

    def _tenths(self) -> int:
        return 10 * self._answered() // self._requests if self._requests else 0
