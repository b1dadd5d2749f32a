"""Log lines about answers of earlier runs: of other scopes, and answers that match no request."""

from __future__ import annotations

from distilabel_openai_batch.api.body_outline import ONLY_PROMPTS_DIFFER
from distilabel_openai_batch.display.event_log import EventLog, LogObserver
from distilabel_openai_batch.display.live import PAUSE_ENV_NAME
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.text import plural


class ReuseLog(LogObserver):
    """Observer that logs the numbers and places of earlier answers, reused or not.

    Args:
        log: receives the log lines.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self._reused = 0
        self._first_reused = 0

    def on_reused(self, requests: int) -> None:
        """Log the first reused answers now; `_log_reused` logs the sum of all reused answers at the end."""
        if requests and not self._reused:
            self._first_reused = requests
            text = f"♻️ An earlier run answered {plural(requests, 'request')}: the answers are reused, not billed again."
            self._log.notice("reused", text, requests=requests)
        self._reused += requests

    def on_empty_reused(self, requests: int) -> None:
        """Log the answers of earlier runs that lack a generation."""
        self._log.info(
            "empty_reused",
            f"♻️ {plural(requests, 'earlier answer')} lack{'s' if requests == 1 else ''} a generation: the same requests"
            ' with a higher limit follow (`on_truncated="retry"`).',
            requests=requests,
        )

    def on_answers_elsewhere(
        self, scope: ScopeName, name: str, known: int, sampled: int, own_address: str | None
    ) -> None:
        """Log that another scope has answers to the requests, and the ways to use the answers."""
        place = f"'{scope.label}' at {scope.base_url}"
        adopt = self._log.command_line("adopt", from_=name, base_url=own_address)
        self._log.warning(
            "answers_elsewhere",
            f"⚠️ Another scope of the ledger, {place}, has {known:,} of {sampled:,} sampled requests. A run uses the"
            " answers of its own scope only, so these requests are submitted and billed again. To use the answers,"
            f' stop, and set `reuse_from="{name}"`, or run `{adopt}`.',
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

    def on_submission_paused(self, requests: int, seconds: float) -> None:
        """Log the pause, and the way to stop the run."""
        self._log.warning(
            "submission_paused",
            f"⏸️ {plural(requests, 'request')} will be submitted in {seconds:g} s: Ctrl+C stops the run before"
            f" anything is submitted. `{PAUSE_ENV_NAME}=0` turns this pause off.",
            requests=requests,
            seconds=seconds,
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

    def _log_reused(self) -> None:
        """Log the number of all reused answers, unless the first line did."""
        if self._reused > self._first_reused:
            self._log.info(
                "reused",
                f"♻️ Earlier runs answered {plural(self._reused, 'request')} in total: the answers were reused, not"
                " billed again.",
            )
