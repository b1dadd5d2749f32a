"""Log lines about synchronous requests: their reason, their tier, their price, and refusals that pass."""

from __future__ import annotations

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Outcome, is_billed
from distilabel_openai_batch.api.service_tiers import FLEX
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.cost_lines import describe_rejected_requests, describe_sync_requests
from distilabel_openai_batch.display.event_log import EventLog, LogObserver
from distilabel_openai_batch.text import plural

# Number of synchronous requests in a run from which on the log reports their start and progress.
_MANY = 100


class SyncLog(LogObserver):
    """Observer that logs the events of synchronous requests, and counts the requests by their price.

    Args:
        log: receives the log lines.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self._flex_requests = 0
        self._sync_requests = 0
        self._rejected_sync = 0
        self._throttled = 0
        self._fallbacks = 0

    @property
    def has_many_sync_requests(self) -> bool:
        """Return whether so many requests were synchronous that the log shows their progress."""
        return self._sync_requests + self._flex_requests >= _MANY

    def on_sync_started(self, requests: int, is_flex: bool) -> None:
        """Log the synchronous requests of a large round."""
        if requests >= _MANY:
            price = "with the flex tier, at the price of a batch" if is_flex else "at full price"
            text = f"📤 Sending {plural(requests, 'request')} to the synchronous endpoint, {price}."
            self._log.info("sync_started", text, requests=requests, is_flex=is_flex)

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """Count a request by its price."""
        is_flex = outcome.tier == FLEX
        self._flex_requests += is_flex
        self._sync_requests += not is_flex
        self._rejected_sync += not is_flex and not is_billed(outcome)

    def on_throttled(self, model: str, reason: str, concurrency: int) -> None:
        """Log refusals 1, 2, 4, 8, … of synchronous requests."""
        self._throttled += 1
        if self._throttled & (self._throttled - 1) == 0:
            self._log.info(
                "throttled",
                f"⏳ {plural(self._throttled, 'synchronous request')} refused for now, and sent again with"
                f" {concurrency:,} in flight: {reason}",
                refusals=self._throttled,
                concurrency=concurrency,
                reason=reason,
            )

    def on_flex_refused(self, model: str, reason: str) -> None:
        """Log that a model has no flex tier."""
        self._log.info(
            "flex_refused",
            f"🔧 {model} has no flex tier at this server: {reason} Refused requests are not billed.",
            model=model,
            reason=reason,
        )

    def on_flex_ignored(self, model: str, tier: str) -> None:
        """Log that the server answered a flex request with another tier."""
        self._log.warning(
            "flex_ignored",
            f"⚠️ The server answered a flex request of {model} with the tier `{tier}`: such answers are billed at the"
            " price of that tier.",
            model=model,
            tier=tier,
        )

    def on_flex_fallback(self, model: str, reason: str) -> None:
        """Log the first request that is sent at full price in place of flex."""
        self._fallbacks += 1
        if self._fallbacks == 1:
            self._log.warning(
                "flex_fallback",
                f"⚠️ Flex has no capacity for {model}: requests are sent at full price. {reason}",
                model=model,
                reason=reason,
            )

    def on_sync_unavailable(self, reason: str) -> None:
        """Log that a batch replaces synchronous requests."""
        self._log.warning(
            "sync_unavailable", f"⚠️ Requests that should be synchronous go into a batch: {reason}", reason=reason
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

    def _log_sync_requests(self, usage: Usage) -> None:
        """Log the numbers of synchronous requests, and the tokens of the requests at full price."""
        if self._flex_requests:
            text = f"💵 The flex tier answered {plural(self._flex_requests, 'request')}, at the price of a batch."
            self._log.info("synchronous", text)
        if billed := self._sync_requests - self._rejected_sync:
            self._log.info("synchronous", describe_sync_requests(billed, usage))
        if self._rejected_sync:
            self._log.info("synchronous", describe_rejected_requests(self._rejected_sync))
