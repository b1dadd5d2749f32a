"""Events of a run, for everything that reports one: log lines, bars, metrics, traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partialmethod

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Failure, Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.states import ScopeName


class Observer:
    """Base class of observers: each method is called on its event, and does nothing.

    Derive a class, override the methods of the events that you need, and pass the class or a function that returns an
    observer to `add_observer` of an LLM or of embeddings. Methods are called on the event loop of the run, so they must
    return at once. The first error of an observer is logged, and the run goes on.
    """

    def on_requested(self, requests: int) -> None:
        """Receive the number of requests that a caller begins to wait for, also of requests that the ledger answers."""

    def on_answered(self, requests: int) -> None:
        """Receive the number of requests that were answered just now, from the ledger or by the server."""

    def on_reused(self, requests: int) -> None:
        """Receive the number of requests that were answered by an earlier run; `on_answered` receives them too."""

    def on_empty_reused(self, requests: int) -> None:
        """Receive the number of answers of an earlier run without text, which are requested again with more tokens."""

    def on_batches_reused(self, batch_ids: Sequence[str]) -> None:
        """Receive the ids of the batches, of earlier runs, that the reused answers come from."""

    def on_retried(self, requests: int) -> None:
        """Receive the number of requests that failed for now and are submitted again."""

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        """Receive the failure of a request that is not submitted again.

        Args:
            failure: its reason.
            custom_id: its `custom_id`; `None` for a request that could not be encoded.
        """

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        """Receive the failure of an answered request that lacks a generation: no choice, no text, or unfit text.

        Args:
            failure: its reason.
            custom_id: its `custom_id`.
        """

    def on_cut(self, limit: int | None, custom_id: str) -> None:
        """Receive an answer that the limit of tokens cut, and whose text is kept.

        Args:
            limit: the limit; `None` if the request sets none.
            custom_id: the `custom_id` of its request.
        """

    def on_resubmitted(self, requests: int) -> None:
        """Receive a number of answered requests that are submitted again in another form, so that they are pending.

        These are cut answers with a higher limit, and answers that do not fit their schema. `on_requested` receives the
        new requests too.
        """

    def on_resubmission_failed(self, requests: int) -> None:
        """Receive a number of such requests that failed, so that the first answer stays; `on_failed` receives each."""

    def on_cut_retried(self, requests: int, limit: int) -> None:
        """Receive a number of requests whose answers were cut or empty, and which are submitted with twice the limit.

        Args:
            requests: their number.
            limit: the highest limit of the new requests.
        """

    def on_cut_unaffordable(self, requests: int) -> None:
        """Receive the number of cut answers that are not requested again, because of the budget."""

    def on_submission_paused(self, requests: int, seconds: float) -> None:
        """Receive a pause after a warning, in which the run can be stopped before anything is submitted.

        Args:
            requests: number of requests that are submitted after the pause.
            seconds: duration of the pause.
        """

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """Receive a batch that was created for a shard."""

    def on_past_jobs(self, past: PastJobs) -> None:
        """Receive the durations of a model's past jobs, after the first job of the model was created."""

    def on_job_resumed(self, batch: Batch, requests: int) -> None:
        """Receive a batch that the run waits for, and that an earlier run, another process or another machine created.

        Args:
            batch: the batch.
            requests: number of its requests.
        """

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        """Receive a job of another process, which has requests of this run; once for each check of that job.

        Args:
            batch_id: the id of its batch; `None` before the batch was created.
        """

    def on_poll_scheduled(self, batch: Batch, seconds: float) -> None:
        """Receive the seconds until a batch is polled for the first time."""

    def on_polled(self, batch: Batch) -> None:
        """Receive the state of a batch after a poll."""

    def on_early_answers(self, batch: Batch, answers: int) -> None:
        """Receive the number of answers that a poll read from the growing output file of a batch in progress."""

    def on_collected(self, batch: Batch, results: JobResults) -> None:
        """Receive the results of a batch that ended."""

    def on_batch_refused(self, batch: Batch) -> None:
        """Receive a batch that the server did not accept."""

    def on_batch_retried(self, batch: Batch, pause: float) -> None:
        """Record a failed batch whose input file makes another batch.

        Args:
            batch: the failed batch.
            pause: seconds until the creation.
        """

    def on_storage_full(self, reason: str) -> None:
        """Receive the refusal of an upload that waits until jobs of the run free files on the server."""

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        """Receive a batch that was found on the server and added to the ledger.

        Args:
            batch: the batch.
            requests: number of the requests of this run that the batch answered, or will answer. A batch without such
                requests is not reported.
        """

    def on_batch_not_adoptable(self, batch: Batch, reason: str) -> None:
        """Receive a batch on the server that cannot be added to the ledger.

        Args:
            batch: the batch.
            reason: the reason, as the end of a sentence: `its input file is gone`.
        """

    def on_result_file_missing(self, file_id: str) -> None:
        """Receive the id of a result file that the server no longer has."""

    def on_usage_differs(self, batch: Batch, billed: Usage, collected: Usage) -> None:
        """Receive the tokens that the server billed for a batch, if they differ from those of its result lines.

        Args:
            batch: the batch.
            billed: the tokens that the batch object shows.
            collected: the tokens that the result lines show.
        """

    def on_results_missing(self, batch: Batch, requests: int) -> None:
        """Receive an ended batch whose files lack answers that the batch counts.

        Args:
            batch: the batch.
            requests: number of missing answers, which may be billed again.
        """

    def on_answers_elsewhere(
        self, scope: ScopeName, name: str, known: int, sampled: int, own_address: str | None
    ) -> None:
        """Receive another scope that has answers to requests which are about to be submitted.

        Args:
            scope: the other scope.
            name: the value of `reuse_from` that selects the scope.
            known: number of the sampled requests that have an answer there, or are in a job in progress there.
            sampled: number of the sampled requests.
            own_address: the address of the run's server, if the other scope has another one.
        """

    def on_answers_unmatched(self, answers: int, difference: str, requests: int) -> None:
        """Receive the number of earlier answers of a Task, none of which matches the requests that are submitted now.

        Args:
            answers: number of the answers.
            difference: the parts in which the requests differ from earlier ones; empty if the parts are unknown.
            requests: number of the requests.
        """

    def on_taken_from(self, scope: ScopeName, requests: int) -> None:
        """Receive the number of answers that were taken from another scope; `on_reused` receives them too."""

    def on_sync_started(self, requests: int, is_flex: bool) -> None:
        """Receive the number of requests that are about to be sent to a synchronous endpoint.

        Args:
            requests: their number.
            is_flex: whether the flex tier is tried first.
        """

    def on_throttled(self, model: str, reason: str, concurrency: int) -> None:
        """Receive the refusal of a synchronous request that is sent again: a rate limit, or a tier without capacity.

        Args:
            model: the requested model.
            reason: the server's reason.
            concurrency: number of requests that may be in flight from now on.
        """

    def on_flex_refused(self, model: str, reason: str) -> None:
        """Receive the refusal of the flex tier for a model.

        Args:
            model: the requested model.
            reason: the server's reason.
        """

    def on_flex_ignored(self, model: str, tier: str) -> None:
        """Receive the tier that answered a flex request in place of flex; `default` if the answer names none."""

    def on_flex_fallback(self, model: str, reason: str) -> None:
        """Receive a request that is sent at full price, because flex has no capacity.

        Args:
            model: the requested model.
            reason: the server's reason.
        """

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """Receive the outcome of a synchronous request; its `tier` decides the price.

        Args:
            model: the requested model.
            outcome: the answer or the failure.
        """

    def on_sync_unavailable(self, reason: str) -> None:
        """Receive the reason why requests go into a batch in place of a synchronous endpoint."""

    def on_parameter_refused(self, model: str, parameter: str) -> None:
        """Receive a parameter that the server refuses for a model; the requests are submitted again without it.

        Args:
            model: the requested model.
            parameter: `max_tokens`, `max_completion_tokens` or `tools`.
        """

    def on_limit_spent(self, model: str, limit: int, tokens: int, reasoning: int) -> None:
        """Receive a preflight's answer that was cut, or that spent more than half of its limit on reasoning.

        Args:
            model: the requested model.
            limit: the limit of the answer's tokens.
            tokens: billed tokens of the answer, for each of its generations on average.
            reasoning: the part of the tokens that reasoning took; all tokens of an answer without text.
        """

    def on_preflight_skipped(self, reason: str) -> None:
        """Receive the reason why no request could be tried before the others are submitted."""

    def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
        """Receive the number of requests whose deadline has passed.

        Args:
            requests: their number, at most.
            batch: their batch, which is cancelled; `None` if it was never created.
        """

    def on_finished(self) -> None:
        """Receive the end of the session."""


ObserverFactory = Callable[[ScopeName], Observer]
"""Function that takes the scope of a session and returns an observer; a class with this argument is one too."""


class ObserverGroup(Observer):
    """Observer that forwards each event to several observers, in their order.

    Args:
        observers: receive each event, also after an error of their own or of another observer.
        logger: receives the first error of each observer.
    """

    def __init__(self, observers: Sequence[Observer], logger: logging.Logger) -> None:
        self._observers = observers
        self._logger = logger
        self._failed_observers: set[int] = set()

    def _forward(self, event: str, *arguments: object, **named_arguments: object) -> None:
        for observer in self._observers:
            self._call(observer, event, *arguments, **named_arguments)

    def _call(self, observer: Observer, event: str, *arguments: object, **named_arguments: object) -> None:
        try:
            getattr(observer, event)(*arguments, **named_arguments)
        except Exception as error:
            if id(observer) not in self._failed_observers:
                self._failed_observers.add(id(observer))
                self._logger.warning(
                    f"⚠️ Observer `{type(observer).__name__}` raised {error!r} in `{event}`. The run goes on; further"
                    " errors of this observer are not logged.",
                    exc_info=True,
                )


for _event in [name for name in vars(Observer) if name.startswith("on_")]:
    setattr(ObserverGroup, _event, partialmethod(ObserverGroup._forward, _event))


def with_observers(
    first: Observer, factories: Sequence[ObserverFactory], scope: ScopeName, logger: logging.Logger
) -> Observer:
    """Return an observer that forwards each event to `first`, and then to the observers that factories return.

    Args:
        first: the observer of the package.
        factories: functions that return the observers of users.
        scope: the scope of the session.
        logger: receives the errors of factories and observers.

    Returns:
        `first` itself if there is no other observer.
    """
    observers = [observer for factory in factories if (observer := _make_observer(factory, scope, logger)) is not None]
    return ObserverGroup([first, *observers], logger) if observers else first


def _make_observer(factory: ObserverFactory, scope: ScopeName, logger: logging.Logger) -> Observer | None:
    """Return the observer of a factory; log the error and return `None` if the factory returns none."""
    try:
        observer = factory(scope)
        if not isinstance(observer, Observer):
            raise TypeError(f"{observer!r} is no Observer")
    except Exception as error:
        name = getattr(factory, "__qualname__", None) or repr(factory)
        logger.warning(
            f"⚠️ `{name}` returned no observer: {error!r}. The run goes on without this observer.", exc_info=True
        )
        return None
    return observer
