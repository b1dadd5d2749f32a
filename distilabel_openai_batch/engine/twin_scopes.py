"""Warning about requests that another scope has answers to, before the requests are billed again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import anyio.to_thread
import orjson

from distilabel_openai_batch.api.encoding import encode_json
from distilabel_openai_batch.api.no_ops import restore_identity
from distilabel_openai_batch.api.requests import Request, build_custom_id, digest_body
from distilabel_openai_batch.engine.answer_reuse import name_source
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName

# Requests that are compared: enough to notice another name of the pipeline or of the server.
_SAMPLE = 50


class TwinScopes:
    """Search for other scopes with answers to the same requests: the pipeline or the server has another name there.

    Args:
        ledger: the ledger of the session.
        observer: receives each scope with answers to most of the sample.
        sources: ids of scopes whose answers the session takes anyhow.
        siblings: the other Tasks of the pipeline, which may make the same requests on purpose; `None` if any Task may
            be one.
    """

    def __init__(
        self,
        ledger: Ledger,
        observer: Observer,
        sources: Collection[int] = (),
        siblings: Collection[str] | None = None,
    ) -> None:
        self._ledger = ledger
        self._observer = observer
        self._sources = sources
        self._siblings = siblings
        self._is_due = True

    async def search(self, requests: Sequence[Request]) -> None:
        """Compare a sample of requests with the other scopes; only the first call does.

        Args:
            requests: the requests that are about to be submitted; without requests nothing is compared.
        """
        if self._is_due and requests:
            self._is_due = False
            sample = requests[:: max(1, len(requests) // _SAMPLE)][:_SAMPLE]
            for scope, name, known in await anyio.to_thread.run_sync(self._count, sample):
                self._observer.on_answers_elsewhere(scope, name, known, len(sample))

    def _count(self, sample: Sequence[Request]) -> list[tuple[ScopeName, str, int]]:
        """Return the scopes that know at least half of a sample, with their `reuse_from` and the number of requests."""
        found = []
        custom_ids: dict[str, list[str]] = {}
        others = self._ledger.other_scopes.list_names()
        for scope_id, scope in others:
            if scope_id in self._sources or self._is_sibling(scope):
                continue
            if scope.base_url not in custom_ids:
                custom_ids[scope.base_url] = [self._custom_id(request, scope.base_url) for request in sample]
            known = self._ledger.other_scopes.count_known(scope_id, custom_ids[scope.base_url])
            if 2 * known >= len(sample):
                found.append((scope, name_source([name for _, name in others], scope), known))
        return found

    def _is_sibling(self, scope: ScopeName) -> bool:
        own = self._ledger.scope
        is_in_pipeline = (scope.pipeline, scope.base_url) == (own.pipeline, own.base_url)
        return is_in_pipeline and (self._siblings is None or scope.task in self._siblings)

    def _custom_id(self, request: Request, base_url: str) -> str:
        """Return the `custom_id` of the first occurrence of a request at a server."""
        if base_url == self._ledger.scope.base_url:
            return build_custom_id(request.custom_id.partition("-")[0], 0)
        body = encode_json(restore_identity(request.endpoint, orjson.loads(bytes(request.body))))
        return build_custom_id(digest_body(base_url, request.endpoint, body), 0)
