"""Log lines about the parameters of requests: limits of tokens that cut answers, and parameters that models refuse."""

from __future__ import annotations

from collections import Counter

from distilabel_openai_batch.display.advice import REPLACEMENTS
from distilabel_openai_batch.display.event_log import EventLog, LogObserver
from distilabel_openai_batch.text import plural


class ParameterLog(LogObserver):
    """Observer that logs refused parameters and small limits, and counts cut answers by their limit.

    Args:
        log: receives the log lines.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self._cut: Counter[int | None] = Counter()
        self._retries_cut = False
        self._models_warned: set[str] = set()

    def on_cut(self, limit: int | None, custom_id: str) -> None:
        """Count a cut answer under its limit."""
        self._cut[limit] += 1

    def on_cut_retried(self, requests: int, limit: int) -> None:
        """Log that cut and empty answers are requested again."""
        self._retries_cut = True
        self._log.info(
            "cut_retried",
            f"✂️ {plural(requests, 'answer')} cut or empty at the limit of tokens: submitted again with limits of up to"
            f" {limit:,} tokens.",
            requests=requests,
            limit=limit,
        )

    def on_cut_unaffordable(self, requests: int) -> None:
        """Log that the budget ends the retries of cut answers."""
        self._retries_cut = True
        self._log.warning(
            "cut_unaffordable",
            f"✂️ {plural(requests, 'answer')} cut or empty at the limit of tokens: not submitted again, since twice the"
            " limit may exceed the budget.",
            requests=requests,
        )

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
        """Log that the preflight's answer shows a limit that is too small, once for each model."""
        if model in self._models_warned:
            return
        self._models_warned.add(model)
        share = f", {reasoning:,} of them for reasoning" if reasoning else ""
        self._log.warning(
            "limit_spent",
            f"⚠️ The preflight's answer of {model} took {tokens:,} of {plural(limit, 'token')} per generation{share}:"
            " other answers will probably be cut or empty. Stop the run, and set a higher `max_new_tokens` or a lower"
            " `reasoning_effort`.",
            model=model,
            limit=limit,
            tokens=tokens,
            reasoning_tokens=reasoning,
        )

    def _log_cut(self, answers: int) -> None:
        """Log the number of cut answers of each limit.

        Args:
            answers: the number of all answers.
        """
        for limit, count in self._cut.most_common():
            retry = "" if self._retries_cut else ', or set `on_truncated="retry"` to submit only cut answers again'
            reason = f"max_new_tokens={limit}" if limit else "the model's limit"
            self._log.warning(
                "cut",
                f"✂️ {count:,} of {plural(answers, 'answer')} were cut at {reason}; their text is kept. → Raise"
                f" `max_new_tokens`{retry}.",
                answers=count,
                limit=limit,
            )
