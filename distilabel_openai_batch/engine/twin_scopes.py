"""Warning about requests that another scope has answers to, before the requests are billed again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import anyio.to_thread

from distilabel_openai_batch.api.addresses import is_loopback
from distilabel_openai_batch.api.requests import Request, sample_evenly
from distilabel_openai_batch.engine.answer_reuse import SAMPLE, AnswerReuse, name_source
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName


class TwinScopes:
    """Search for other scopes with answers to the same requests: the pipeline or the server has another name there.

    Args:
        ledger: the ledger of the session.
        observer: receives the scope with answers to most of the sample.
        reuse: the scopes whose answers the session takes anyhow, and the digests of requests at other addresses.
        siblings: the other Tasks of the pipeline, which may make the same requests on purpose; `None` if any Task may
            be one.
    """

    def __init__(
        self,
        ledger: Ledger,
        observer: Observer,
        reuse: AnswerReuse,
        siblings: Collection[str] | None = None,
    ) -> None:
        self._ledger = ledger
        self._observer = observer
        self._reuse = reuse
        self._siblings = siblings
        self._is_due = True

    async def search(self, requests: Sequence[Request]) -> str:
        """Compare a sample of requests with the other scopes; only the first call does.

        Args:
            requests: the requests that are about to be submitted; without requests nothing is compared.

        Returns:
            The reason of a warning; empty if no other scope has the answers.
        """
        if not self._is_due or not requests:
            return ""
        self._is_due = False
        twins = await anyio.to_thread.run_sync(self._find, requests)
        if not twins:
            return ""
        # Each name that a pipeline had before may know the same requests. Of equal scopes the newest is first.
        scope, name, answers, sampled, own_address = max(twins, key=lambda twin: twin[2])
        self._observer.on_answers_elsewhere(scope, name, answers, sampled, own_address)
        return (
            f"Scope '{scope.label}' has answers to {answers:,} of {sampled:,} sampled requests; set"
            f' `reuse_from="{name}"` to use the answers.'
        )

    def _find(self, requests: Sequence[Request]) -> list[tuple[ScopeName, str, int, int, str | None]]:
        """Return the scopes that know at least half of a sample, as arguments of `on_answers_elsewhere`.

        A server of this machine is a rehearsal: its answers are not offered to a run at another machine's server.
        """
        own_address = self._ledger.scope.base_url
        found = []
        samples: dict[str, dict[str, str]] = {}
        others = self._ledger.other_scopes.list_names()
        for scope_id, scope in others:
            if scope_id in self._reuse.source_ids or self._is_sibling(scope):
                continue
            if is_loopback(scope.base_url) and not is_loopback(own_address):
                continue
            if scope.base_url not in samples:
                samples[scope.base_url] = self._sample(requests, scope.base_url)
            sample = samples[scope.base_url]
            known = self._ledger.reused_answers.count(scope_id, sample)
            if sample and 2 * known >= len(sample):
                name = name_source([name for _, name in others], scope, own_address)
                address = own_address if scope.base_url != own_address else None
                found.append((scope, name, known, len(sample), address))
        return found

    def _sample(self, requests: Sequence[Request], base_url: str) -> dict[str, str]:
        """Return the digest that each request of a sample has at an address, by the request's `custom_id`."""
        if base_url == self._ledger.scope.base_url:
            sample = sample_evenly(requests, SAMPLE)
            return {request.custom_id: request.custom_id.rpartition("-")[0] for request in sample}
        custom_ids = {request.custom_id for request in requests}
        return {name: digests[base_url] for name, digests in self._reuse.sampled.items() if name in custom_ids}

    def _is_sibling(self, scope: ScopeName) -> bool:
        own = self._ledger.scope
        is_in_pipeline = (scope.pipeline, scope.base_url) == (own.pipeline, own.base_url)
        return is_in_pipeline and (self._siblings is None or scope.task in self._siblings)
