"""What a run has come to so far, and the few log lines that say so."""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from dataclasses import dataclass, field

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.advice import next_step
from distilabel_openai_batch.display.bars import Bar, counted
from distilabel_openai_batch.display.live import Display
from distilabel_openai_batch.display.tables import remaining
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.pricing.prices import Cost, dollars
from distilabel_openai_batch.text import plural

_SECONDS_BETWEEN_LINES = 300.0
_CUSTOM_IDS_NAMED = 3
_SECONDS_BETWEEN_DRAWINGS = 0.1


@dataclass(slots=True)
class _Kind:
    """Failures that are alike.

    Attributes:
        example: one of them.
        custom_ids: the first of those that it happened to.
        count: how many there are.
    """

    example: Failure
    custom_ids: list[str] = field(default_factory=list)
    count: int = 0


class Progress(Observer):
    """Counts a run's requests, jobs and tokens.

    Args:
        logger: where the lines go.
        base_url: the server's address, which tells what it bills.
        display: where progress is shown beside the log, if it is.
        scope: who asks, by the name that the command line has for it.
        to_ask_again: how the requests without an answer are asked again.
    """

    def __init__(
        self,
        logger: logging.Logger,
        base_url: str = "",
        display: Display | None = None,
        scope: str = "",
        to_ask_again: str = "Run again",
    ) -> None:
        self._display = display
        self._bars: dict[str, Bar] = {}
        self._bars_since: dict[str, float] = {}
        self._shown_at = float("-inf")
        self._logger = logger
        self._base_url = base_url
        self._scope = scope
        self._to_ask_again = to_ask_again
        self._started = time.monotonic()
        self._requests = 0
        self._answers = 0
        self._asked_again = 0
        self._rejected = 0
        self._reused = 0
        self._first_reused = 0
        self._jobs = 0
        self._asked_now = 0
        # By the models that answered and were asked, and whether they were asked synchronously.
        self._usage: dict[tuple[str, str, bool], Usage] = {}
        self._models: dict[str, str] = {}
        self._live: dict[str, Batch] = {}
        self._early: Counter[str] = Counter()
        self._others: set[str | None] = set()
        self._kinds: dict[tuple[int | None, str | None, str], _Kind] = {}
        self._tenth = 0
        self._line_at = self._started

    def on_answered(self, requests: int) -> None:  # noqa: D102
        self._answers += requests

    def on_submitted(self, requests: int) -> None:
        """So many requests are to be answered."""
        self._requests += requests
        self._tenth = min(self._tenth, self._tenths())

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """A batch was created for a shard."""
        self._jobs += 1
        self._live[batch.id] = batch
        self._models[batch.id] = shard.requests[0].model
        self._logger.info(
            f"📤 Submitted job {self._jobs}, batch {batch.id}: {len(shard.requests):,} requests,"
            f" {shard.size / 1e6:,.2f} MB, of {self._requests:,} requests so far."
        )
        self._show(batch, len(shard.requests))

    def on_polled(self, batch: Batch) -> None:
        """A job was looked at."""
        if batch.id not in self._live:
            return
        self._live[batch.id] = batch
        self._show(batch)
        tenth, now = self._tenths(), time.monotonic()
        if tenth > self._tenth or now - self._line_at >= _SECONDS_BETWEEN_LINES:
            self._tenth, self._line_at = tenth, now
            self._logger.info(
                f"⏳ {self._done():,} of {self._requests:,} requests answered,"
                f" {self._failed() + sum(live.failed for live in self._live.values()):,} failed;"
                f" jobs: {counted(live.status for live in self._live.values())};"
                f" {now - self._started:,.0f} s."
            )

    def on_job_resumed(self, batch: Batch, requests: int) -> None:
        """A batch was found that an earlier run, another process or another machine created."""
        self._live[batch.id] = batch
        self._logger.info(f"🔁 Carrying on with batch {batch.id}, which is {batch.status}: {requests:,} requests.")
        self._show(batch, requests)

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        """A batch was found on the server that the ledger did not know."""
        self._logger.info(f"🔁 Found batch {batch.id} on the server: {requests:,} requests that need not be bought.")

    def on_batch_not_adoptable(self, batch: Batch) -> None:
        """A batch was found that is under way, and whose requests are not known."""
        self._logger.warning(
            f"⚠️ Batch {batch.id} of this task is {batch.status}, but its input file is gone: what it asks may be bought"
            " a second time."
        )

    def on_reused(self, answers: int) -> None:
        """So many requests were answered by an earlier run. The first are told of at once, all of them at the end."""
        if answers and not self._reused:
            self._first_reused = answers
            self._logger.info(f"♻️ {answers:,} requests were answered before, and are not bought again.")
        self._reused += answers

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        """A job is run by another process."""
        if batch_id not in self._others:
            self._others.add(batch_id)
            self._logger.info(f"⏳ Another process runs batch {batch_id or '(not created yet)'}; waiting for it.")

    def on_batch_refused(self, batch: Batch) -> None:
        """The server did not accept a batch."""
        self._live.pop(batch.id, None)
        self._show(batch)

    def on_result_file_missing(self, file_id: str) -> None:
        """A file with results is gone."""
        self._logger.warning(f"⚠️ The server does not have file {file_id} any more; what it said is asked again.")

    def on_early_answers(self, batch: Batch, answers: int) -> None:
        """So many answers were taken from a batch that is under way, and says itself how many it has."""
        self._early[batch.id] += answers

    def on_collected(self, batch: Batch, results: JobResults) -> None:
        """A job's results are here."""
        # Before its answers are counted one by one.
        self._show(batch, ended=True)
        self._live.pop(batch.id, None)
        if results.answers:
            usage = Usage(*results.tokens, results.cached_tokens, tuple(results.long_prompts))
            self._billed(results.model, self._models.pop(batch.id, ""), usage, asked_now=False)
        if batch.status != "completed":
            reasons = f": {batch.reasons}" if batch.errors else ""
            self._logger.warning(f"Batch {batch.id} ended as {batch.status}{reasons}; what it answered is used.")
        if results.stray_lines:
            self._logger.warning(
                f"Batch {batch.id} has {results.stray_lines:,} result lines that belong to no request."
            )

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """A request of a model was asked synchronously, and is billed in full if it was answered."""
        self._asked_now += 1
        if isinstance(outcome, Answer):
            usage = Usage.of_request(*outcome.tokens, outcome.cached_tokens)
            self._billed(str(outcome.body.get("model") or ""), model, usage, asked_now=True)
        self._show()

    def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
        """So many requests are not waited for any longer."""
        which = f"; batch {batch.id} is cancelled, and what it answered is kept" if batch else ""
        self._logger.warning(
            f"⏰ The deadline has passed{which}. Up to {requests:,} requests are asked synchronously, at full price."
        )

    def on_preflight_skipped(self, reason: str) -> None:
        """No request could be tried before the others are submitted."""
        self._logger.warning(f"⚠️ No request could be tried out before the others are submitted: {reason}")

    def on_sync_unavailable(self, reason: str) -> None:
        """Requests that were to be asked synchronously go into a batch."""
        self._logger.warning(f"⚠️ What was to be answered at once goes into a batch: {reason}")

    def on_retried(self, requests: int) -> None:
        """So many failed requests go into another job."""
        self._asked_again += requests

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        """A request stays without an answer; one that could not even be written has no `custom_id`."""
        if failure == OTHER_BATCH:
            self._requests -= 1
            return
        kind = self._kinds.setdefault((failure.status_code, failure.code, failure.message), _Kind(failure))
        kind.count += 1
        if custom_id and len(kind.custom_ids) < _CUSTOM_IDS_NAMED:
            kind.custom_ids.append(custom_id)

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        """An answer cannot be used. Each in its own way: those of one code are one kind."""
        self._rejected += 1
        kind = self._kinds.setdefault((None, failure.code, ""), _Kind(failure))
        kind.count += 1
        if len(kind.custom_ids) < _CUSTOM_IDS_NAMED:
            kind.custom_ids.append(custom_id)

    def on_finished(self) -> None:
        """The run is over."""
        cost = self._cost()
        summary = self._summary()
        if self._display:
            money = f" {dollars(cost.spent)}, {dollars(cost.saved)} less than at once." if cost else ""
            self._display.close(f"{summary}{money}")
        if not self._requests:
            return
        for kind in sorted(self._kinds.values(), key=lambda kind: -kind.count):
            which = f" The first custom_ids: {', '.join(kind.custom_ids)}." if kind.custom_ids else ""
            advice = next_step(kind.example, next(iter(kind.custom_ids), None))
            self._logger.warning(
                f"⚠️ {plural(kind.count, 'request')} failed: {str(kind.example).rstrip('.')}.{which} → {advice}"
            )
        if self._kinds:
            self._logger.warning(
                f"🔎 `distilabel-openai-batch failures {shlex.quote(self._scope)}` lists them; `add_failures=True` says"
                f" why in each row. {self._to_ask_again} to ask for what has no answer."
            )
        self._logger.info(summary)
        if self._reused > self._first_reused:
            self._logger.info(f"♻️ {self._reused:,} requests in all were answered before, and were not bought again.")
        if self._asked_now:
            usage = self._tokens(asked_now=True)
            self._logger.info(
                f"💸 {self._asked_now:,} requests were asked synchronously, at full price:"
                f" {usage.tokens_in:,} tokens in and {usage.tokens_out:,} out, at twice what a batch costs."
            )

        if cost:
            self._logger.info(
                f"💵 The answers of this run cost {dollars(cost.spent)} by list prices, {dollars(cost.saved)} less than"
                " at once."
            )

    def _summary(self) -> str:
        usage = self._tokens(asked_now=False)
        left = self._requests - self._answers - self._failed() + self._rejected
        still_open = f" {left:,} open," if left else ""
        return (
            f"🏁 {self._answers - self._rejected:,} of {self._requests:,} requests answered, {self._failed():,} failed,"
            f"{still_open} {self._asked_again:,} asked again; {usage.tokens_in:,} tokens in, {usage.tokens_out:,} out;"
            f" {plural(self._jobs, 'job')}; {time.monotonic() - self._started:,.1f} s."
        )

    def _show(self, batch: Batch | None = None, requests: int | None = None, ended: bool = False) -> None:
        """Shows how things are, where they are shown.

        Args:
            batch: what has changed; otherwise a request that is in no batch, of which there may be many in a second.
            requests: those that it has, the first time.
            ended: whether its results are here.
        """
        if self._display is None:
            return
        now = time.monotonic()
        if batch is None and now - self._shown_at < _SECONDS_BETWEEN_DRAWINGS:
            return
        self._shown_at = now
        if batch:
            since = self._bars_since.setdefault(batch.id, now)
            total = requests if requests is not None else self._bars[batch.id].total if batch.id in self._bars else 0
            done = total if ended else min(total, batch.completed + batch.failed)
            eta = None if batch.has_ended or ended else remaining(now - since, done, total)
            self._bars[batch.id] = Bar(batch.id, "", done, total, batch.status, batch.has_ended or ended, eta)
        done = min(self._requests, self._done() + self._failed())
        self._display.show(list(self._bars.values()), done, self._requests)

    def _billed(self, answered_by: str, asked: str, usage: Usage, asked_now: bool) -> None:
        key = (answered_by, asked, asked_now)
        self._usage[key] = self._usage.get(key, Usage(0, 0)) + usage

    def _tokens(self, asked_now: bool) -> Usage:
        """What was billed synchronously, or in batches."""
        return sum((usage for (*_, now), usage in self._usage.items() if now == asked_now), Usage(0, 0))

    def _cost(self) -> Cost | None:
        """What was billed; `None` where that is nothing, or not known for all of it."""
        total, now = Cost(), time.time()
        for (answered_by, asked, asked_now), usage in self._usage.items():
            rates = prices.rates(answered_by, self._base_url, now) or prices.rates(asked, self._base_url, now)
            if rates is None or not usage.tokens_in + usage.tokens_out:
                return None
            total += rates.cost(usage, asked_now)
        return total if self._usage else None

    def _failed(self) -> int:
        return sum(kind.count for kind in self._kinds.values())

    def _done(self) -> int:
        return self._answers + sum(max(0, live.completed - self._early[live.id]) for live in self._live.values())

    def _tenths(self) -> int:
        return 10 * self._done() // self._requests if self._requests else 0
