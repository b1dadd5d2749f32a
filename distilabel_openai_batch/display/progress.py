"""Log lines and bars of a run: an observer that counts requests, jobs, tokens and dollars."""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.body_outline import ONLY_PROMPTS_DIFFER
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, Outcome, is_billed, usage_of
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.service_tiers import FLEX
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.advice import REPLACEMENTS, RUN_AGAIN, RetryWay
from distilabel_openai_batch.display.bars import count_statuses
from distilabel_openai_batch.display.cost_lines import (
    describe_cost,
    describe_usage_difference,
)
from distilabel_openai_batch.display.event_log import EventLog
from distilabel_openai_batch.display.failure_kinds import FailureKinds
from distilabel_openai_batch.display.live import PAUSE_ENV_NAME, Display
from distilabel_openai_batch.display.pace import Pace
from distilabel_openai_batch.display.run_bars import RunBars
from distilabel_openai_batch.display.sync_log import SyncLog
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.display.timings import describe_past_jobs
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing.price_book import PriceBook
from distilabel_openai_batch.pricing.prices import Cost, format_dollars
from distilabel_openai_batch.pricing.run_costs import RunCosts
from distilabel_openai_batch.text import duration, message_kind, plural, size

# Seconds without a poll that the log announces.
_LONG_PAUSE_SECONDS = 10.0

# A poll logs the progress if another tenth of the requests is answered, or after five minutes without a line.
_SECONDS_BETWEEN_LINES = 300.0


# long: a method for each event of a run
class Progress(SyncLog):
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
    """

    def __init__(
        self,
        logger: logging.Logger,
        price_book: PriceBook | None = None,
        display: Display | None = None,
        scope: str = "",
        retry: RetryWay = RUN_AGAIN,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(EventLog(logger, scope))
        self.batch_ids: dict[str, None] = {}
        self._bars = RunBars(display) if display else None
        self._price_book = price_book or PriceBook("")
        self._costs = RunCosts(self._price_book)
        self._scope = scope
        self._retry = retry
        self._notify = notify
        self._started = time.monotonic()
        self._finished: float | None = None
        self._requests = 0
        self._answers = 0
        self._retries = 0
        self._rejected = 0
        self._reused = 0
        self._first_reused = 0
        self._jobs = 0
        self._requested_models: dict[str, str] = {}
        self._open_batches: dict[str, Batch] = {}
        self._early_answers: Counter[str] = Counter()
        self._batches_of_others: set[str | None] = set()
        self._failures = FailureKinds()
        self._cut: Counter[int | None] = Counter()
        self._was_storage_full = False
        self._pace = Pace()
        self._logged_tenth = 0
        self._has_logged_pause = False
        self._logged_at = self._started

    def on_requested(self, requests: int) -> None:
        """Add to the expected number of requests."""
        self._requests += requests
        self._logged_tenth = min(self._logged_tenth, self._tenths())

    def on_answered(self, requests: int) -> None:
        """Add to the number of answered requests."""
        self._answers += requests

    def on_reused(self, requests: int) -> None:
        """Log the first reused answers now; the sum of all reused answers is logged at the end."""
        if requests and not self._reused:
            self._first_reused = requests
            text = f"♻️ An earlier run answered {plural(requests, 'request')}: the answers are reused, not billed again."
            self._log.info("reused", text, requests=requests)
            if self._notify:
                self._notify(text)
        self._reused += requests
        self._draw()

    def on_batches_reused(self, batch_ids: Sequence[str]) -> None:
        """Note the batches of the reused answers."""
        self.batch_ids.update(dict.fromkeys(batch_ids))

    def on_retried(self, requests: int) -> None:
        """Add to the number of retried requests."""
        self._retries += requests

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

    def on_cut(self, limit: int | None, custom_id: str) -> None:
        """Count a cut answer under its limit."""
        self._cut[limit] += 1

    def on_cut_retried(self, requests: int, limit: int) -> None:
        """Log that cut and empty answers are requested again."""
        self._log.info(
            "cut_retried",
            f"✂️ {plural(requests, 'answer')} cut or empty at the limit of tokens: submitted again with limits of up to"
            f" {limit:,} tokens.",
            requests=requests,
            limit=limit,
        )

    def on_cut_unaffordable(self, requests: int) -> None:
        """Log that the budget ends the retries of cut answers."""
        self._log.warning(
            "cut_unaffordable",
            f"✂️ {plural(requests, 'answer')} cut or empty at the limit of tokens: not submitted again, since twice the"
            " limit may exceed the budget.",
            requests=requests,
        )

    def on_submission_paused(self, requests: int, seconds: float) -> None:
        """Log the pause, and the way to stop the run."""
        self._log.warning(
            "submission_paused",
            f"⏸️ {plural(requests, 'request')} will be submitted in {seconds:g} s: Ctrl+C stops the run before"
            f" anything is submitted. `{PAUSE_ENV_NAME}=0` turns this pause off.",
            requests=requests,
            seconds=seconds,
        )

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """Log the submission of a job."""
        self._jobs += 1
        self._add_open_batch(batch)
        self._requested_models[batch.id] = shard.requests[0].model
        self._log.info(
            "job_created",
            f"📤 Submitted job {self._jobs}, batch {batch.id}: {plural(len(shard.requests), 'request')}"
            f"{f' of {self._requests:,} so far' if len(shard.requests) < self._requests else ''}, {size(shard.size)}.",
            batch_id=batch.id,
            status=batch.status,
            requests=len(shard.requests),
            bytes=shard.size,
        )
        self._pace.start(time.monotonic(), self._done())
        self._draw_batch(batch, len(shard.requests))

    def on_past_jobs(self, past: PastJobs) -> None:
        """Log the durations of a model's past jobs."""
        self._log.info("past_jobs", f"⏱️ {describe_past_jobs(past)}", jobs=past.jobs, seconds=past.median_seconds)

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

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        """Log once per batch that another process runs the job."""
        if batch_id not in self._batches_of_others:
            self._batches_of_others.add(batch_id)
            self._log.info(
                "job_of_another_process",
                f"⏳ Another process runs batch {batch_id or '(not created yet)'}; waiting for its answers.",
                batch_id=batch_id,
            )

    def on_poll_scheduled(self, batch: Batch, seconds: float) -> None:
        """Log once when the next poll is due, if the log would be silent for long."""
        if seconds >= _LONG_PAUSE_SECONDS and not self._has_logged_pause:
            self._has_logged_pause = True
            self._log.info(
                "poll_scheduled",
                f"⏱️ The server is polled every {duration(seconds)}: the next poll is due then.",
                batch_id=batch.id,
                status=batch.status,
                seconds=seconds,
            )

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
        self._log.info(
            "progress",
            f"⏳ {answered:,} of {plural(self._requests, 'request')} answered"
            f" ({100 * answered // max(1, self._requests)} %), {self._failed_so_far():,} failed;"
            f"{f' jobs: {statuses};' if statuses else ''}"
            f" {duration(now - self._started)}{f', about {duration(left)} left' if left is not None else ''}"
            f"{f'; {format_dollars(cost.spent)} for the jobs that have ended' if cost else ''}.",
            answered=answered,
            requests=self._requests,
            failed=self._failed_so_far(),
            dollars=float(cost.spent) if cost else None,
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

    def on_batch_retried(self, batch: Batch, pause: float) -> None:
        """Log why a batch failed, and when another one is created."""
        reasons = batch.reasons.rstrip(".")
        self._log.warning(
            "batch_retried",
            f"⚠️ Batch {batch.id} failed: {reasons}. Another batch is created from its input file in {pause:.0f} s.",
            batch_id=batch.id,
            status=batch.status,
            seconds=pause,
        )

    def on_storage_full(self, reason: str) -> None:
        """Log the first refusal of an upload that waits for room on the server."""
        if not self._was_storage_full:
            self._was_storage_full = True
            self._log.warning(
                "storage_full", f"⏳ Uploads wait until jobs end and their files are deleted: {reason}", reason=reason
            )

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        """Log a batch that was found on the server."""
        self._log.info(
            "batch_adopted",
            f"🔁 Found batch {batch.id} on the server: {plural(requests, 'request')}, which are not billed again.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
        )

    def on_batch_not_adoptable(self, batch: Batch, reason: str) -> None:
        """Log a batch whose requests or results are unknown."""
        self._log.warning(
            "batch_not_adoptable",
            f"⚠️ Batch {batch.id} of this task is {batch.status}, but {reason}: its requests may be submitted and billed"
            " a second time.",
            batch_id=batch.id,
            status=batch.status,
            reason=reason,
        )

    def on_result_file_missing(self, file_id: str) -> None:
        """Log a missing result file."""
        self._log.warning(
            "result_file_missing",
            f"⚠️ The server no longer has result file {file_id}; its requests are submitted again.",
            file_id=file_id,
        )

    def on_results_missing(self, batch: Batch, requests: int) -> None:
        """Log answers that the server counts and does not return."""
        self._log.warning(
            "results_missing",
            f"⚠️ Batch {batch.id} counts {plural(requests, 'answer')} that its files do not contain. The requests are"
            " submitted again, and may be billed twice.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
        )

    def on_usage_differs(self, batch: Batch, billed: Usage, collected: Usage) -> None:
        """Log tokens that were billed and not collected, or collected and not billed."""
        self._log.warning(
            "usage_differs",
            f"⚠️ Batch {batch.id} {describe_usage_difference(billed, collected)}",
            batch_id=batch.id,
            status=batch.status,
        )

    def on_answers_elsewhere(
        self, scope: ScopeName, name: str, known: int, sampled: int, own_address: str | None
    ) -> None:
        """Log that another scope has answers to the requests, and the ways to use the answers."""
        place = f"'{scope.label}' at {scope.base_url}"
        options = f" --base-url {shlex.quote(own_address)}" if own_address else ""
        self._log.warning(
            "answers_elsewhere",
            f"⚠️ Another scope of the ledger, {place}, has {known:,} of {sampled:,} sampled requests. A run uses the"
            " answers of its own scope only, so these requests are submitted and billed again. To use the answers,"
            f' stop, and set `reuse_from="{name}"`, or run `distilabel-openai-batch adopt {shlex.quote(self._scope)}'
            f" --from {shlex.quote(name)}{options}`.",
            other_scope=scope.label,
            other_name=name,
            known=known,
            sampled=sampled,
        )

    def on_answers_unmatched(self, answers: int, difference: str, requests: int) -> None:
        """Log that earlier answers are not used, and why; new rows alone are no reason to warn."""
        log = self._log.info if difference == ONLY_PROMPTS_DIFFER else self._log.warning
        log(
            "answers_unmatched",
            f"{plural(answers, 'earlier answer')} of this Task no longer match{'es' if answers == 1 else ''}"
            f"{f' ({difference})' if difference else ''}; {plural(requests, 'request')} will be submitted.",
            answers=answers,
            difference=difference,
            requests=requests,
        )

    def on_taken_from(self, scope: ScopeName, requests: int) -> None:
        """Log that answers of another scope are used."""
        self._log.info(
            "taken_from",
            f"♻️ {plural(requests, 'answer')} of scope '{scope.label}' at {scope.base_url}: taken for the same requests,"
            " not billed again.",
            other_scope=scope.label,
            requests=requests,
        )

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

    def on_parameter_refused(self, model: str, parameter: str) -> None:
        """Log a parameter that a model refuses, and its replacement."""
        self._log.info(
            "parameter_refused",
            f"🔧 {model} refuses `{parameter}`: its requests are submitted again {REPLACEMENTS[parameter]}."
            " Refused requests are not billed.",
            model=model,
            parameter=parameter,
        )

    def on_limit_spent(self, model: str, limit: int, tokens: int, reasoning: int) -> None:
        """Log that the preflight's answer shows a limit that is too small."""
        share = f", {reasoning:,} of them for reasoning" if reasoning else ""
        self._log.warning(
            "limit_spent",
            f"⚠️ The preflight's answer of {model} took {tokens:,} of {plural(limit, 'token')}{share}: other answers"
            " will probably be cut or empty. Stop the run, and set a higher `max_new_tokens` or a lower"
            " `reasoning_effort`.",
            model=model,
            limit=limit,
            tokens=tokens,
            reasoning_tokens=reasoning,
        )

    def on_preflight_skipped(self, reason: str) -> None:
        """Log that the preflight is skipped."""
        self._log.warning(
            "preflight_skipped",
            f"⚠️ The preflight is skipped, all requests are submitted untested: {reason}",
            reason=reason,
        )

    def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
        """Log that the deadline has passed."""
        cancelled = f"; batch {batch.id} is cancelled, and its answers are kept" if batch else ""
        self._log.warning(
            "deadline_passed",
            f"⏰ The deadline has passed{cancelled}. Up to {plural(requests, 'request')} go to the synchronous"
            " endpoint, at full price.",
            requests=requests,
            batch_id=batch.id if batch else None,
        )

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
            costs = (
                f" {format_dollars(cost.spent)}, {format_dollars(cost.saved)} less than synchronous." if cost else ""
            )
            self._bars.close(f"{summary}{costs}")
        if self._requests:
            for line in self._failures.lines(self._scope, self._retry):
                self._log.warning("failures", line)
            self._log_cut()
            self._log.info("finished", summary, **self.counts().facts())
            self._log_costs(cost)

    def _log_cut(self) -> None:
        for limit, count in self._cut.most_common():
            reason = f"max_new_tokens={limit}" if limit else "the model's limit"
            self._log.warning(
                "cut",
                f"✂️ {count:,} of {plural(self._answers, 'answer')} were cut at {reason}; their text is kept. → Raise"
                ' `max_new_tokens`, or set `on_truncated="retry"` to submit only cut answers again.',
                answers=count,
                limit=limit,
            )

    def _log_costs(self, cost: Cost | None) -> None:
        if self._reused > self._first_reused:
            self._log.info(
                "reused",
                f"♻️ Earlier runs answered {plural(self._reused, 'request')} in total: the answers were reused, not"
                " billed again.",
            )
        self._log_sync_requests(self._costs.tokens(is_sync=True))
        if cost:
            self._log.info("cost", describe_cost(cost, self._price_book.source))

    def _summary(self) -> str:
        usage = self._costs.tokens(is_sync=False)
        answered = self._answered() - self._rejected
        uncollected = self._answered() - self._answers
        unanswered = self._requests - answered - self._failed()
        pending = f" {unanswered:,} pending," if unanswered else ""
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
        return self._failures.count

    def _failed_so_far(self) -> int:
        """Return the number of failed requests, with the failures that open batches count."""
        return self._failed() + sum(batch.failed for batch in list(self._open_batches.values()))

    def _done(self) -> int:
        return self._answered() + self._failed_so_far()

    def _answered(self) -> int:
        """Return the number of answered requests; each open batch adds its own count without the early answers."""
        return self._answers + sum(
            max(0, batch.completed - self._early_answers[batch.id]) for batch in list(self._open_batches.values())
        )

    def _tenths(self) -> int:
        return 10 * self._answered() // self._requests if self._requests else 0
