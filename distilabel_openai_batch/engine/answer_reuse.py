"""Answers of other scopes that a session takes for its own requests, so that no equal request is billed again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import anyio.to_thread

from distilabel_openai_batch.api.addresses import is_same_server
from distilabel_openai_batch.api.azure_addresses import is_azure_address
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.errors import InvalidSettingError
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.text import did_you_mean

_AT = " at "

SAMPLE = 50
"""Requests that are compared with all scopes: enough to notice another name of the pipeline or of the server."""


class AnswerReuse:
    """Other scopes of the ledger whose answers a session takes.

    A request has another digest at each address. A digest is taken of the call, since the sent body may differ from the
    body that identifies the request.

    Args:
        ledger: the ledger of the session.
        sources: the id and the name of each scope, the preferred scope first.
        observer: receives the numbers of answers.
        addresses: the addresses of all scopes of the ledger.

    Attributes:
        source_ids: the ids of the scopes.
        needs_digests: whether digests of further requests are kept.
        sampled: digests of the first requests by address, for each request's `custom_id`.
    """

    def __init__(
        self,
        ledger: Ledger,
        sources: Sequence[tuple[int, ScopeName]],
        observer: Observer,
        addresses: Collection[str] = (),
    ) -> None:
        self._ledger = ledger
        self._sources = sources
        self._observer = observer
        self.source_ids = tuple(scope_id for scope_id, _ in sources)
        own = {ledger.scope.base_url}
        self._addresses = {name.base_url for _, name in sources} - own
        self._sampled_addresses = set(addresses) - own
        self.needs_digests = bool(self._addresses or self._sampled_addresses)
        self._digests: dict[str, dict[str, str]] = {}
        self.sampled: dict[str, dict[str, str]] = {}

    def add_digests(self, custom_id: str, call: APICall) -> None:
        """Keep the digests that a request has at the other addresses.

        Args:
            custom_id: the `custom_id` of the request.
            call: the call of the request.
        """
        if len(self.sampled) < SAMPLE:
            self.sampled[custom_id] = digests_at(call, self._sampled_addresses)
        else:
            self.needs_digests = bool(self._addresses)
        if self._addresses:
            self._digests[custom_id] = digests_at(call, self._addresses)

    async def take(self, requests: Sequence[Request]) -> bool:
        """Copy the answers to requests into the session's scope; return whether there are any.

        Args:
            requests: requests that the session's scope has no answer to.
        """
        remaining = [request.custom_id for request in requests]
        has_taken = False
        for scope_id, name in self._sources:
            digests = self._digests_at(name.base_url, remaining)
            taken = set(await anyio.to_thread.run_sync(self._ledger.reused_answers.take, scope_id, digests))
            if taken:
                has_taken = True
                self._observer.on_taken_from(name, len(taken))
                remaining = [custom_id for custom_id in remaining if custom_id not in taken]
        return has_taken

    async def find_pending(self, requests: Iterable[Request]) -> dict[int, list[Request]]:
        """Return the requests that are pending in jobs of the other scopes, by the id of the job."""
        by_custom_id = {request.custom_id: request for request in requests}
        found: dict[int, list[Request]] = {}
        for scope_id, name in self._sources:
            digests = self._digests_at(name.base_url, list(by_custom_id))
            jobs = await anyio.to_thread.run_sync(self._ledger.reused_answers.find_pending, scope_id, digests)
            for job_id, custom_ids in jobs.items():
                found[job_id] = [by_custom_id.pop(custom_id) for custom_id in custom_ids]
        return found

    def _digests_at(self, base_url: str, custom_ids: Sequence[str]) -> dict[str, str]:
        """Return the digest that each request has at an address."""
        if base_url not in self._addresses:
            return {custom_id: custom_id.rpartition("-")[0] for custom_id in custom_ids}
        return {custom_id: self._digests[custom_id][base_url] for custom_id in custom_ids}


def digests_at(call: APICall, addresses: Iterable[str]) -> dict[str, str]:
    """Return the digest of a call at each address."""
    return {address: call.build(address, _endpoint(call.endpoint, address))[1] for address in addresses}


def _endpoint(path: str, base_url: str) -> str:
    """Return the path of an endpoint at an address; Azure's paths have no version in front."""
    return path.removeprefix("/v1") if is_azure_address(base_url) else path


def open_reuse(ledger: Ledger, reuse_from: str | None, former_names: Sequence[str], observer: Observer) -> AnswerReuse:
    """Return the scopes whose answers a session takes.

    Args:
        ledger: the ledger of the session.
        reuse_from: the name of a scope, as `select_source` takes the name; `None` for no such scope.
        former_names: names that an earlier release gave to the scope's pipeline.
        observer: receives the numbers of answers.

    Raises:
        InvalidSettingError: the ledger has no scope of the name, or several.
    """
    others = ledger.other_scopes.list_names()
    selected = select_source([name for _, name in others], reuse_from, ledger.scope) if reuse_from else None
    linked = ledger.other_scopes.list_sources()
    former = [
        name
        for _, name in others
        if name.pipeline in former_names and not name.task and name.base_url == ledger.scope.base_url
    ]
    sources = [(scope_id, name) for scope_id, name in others if name == selected]
    sources += [source for scope_id in linked for source in others if source[0] == scope_id and source not in sources]
    sources += [source for source in others if source[1] in former and source not in sources]
    return AnswerReuse(ledger, sources, observer, {name.base_url for _, name in others})


def select_source(others: Sequence[ScopeName], name: str, own: ScopeName) -> ScopeName | None:
    """Return the scope that a name selects.

    A name is a label (`pipeline/task`, a script or a submission), a full label (`pipeline//task`), or a pipeline, which
    selects its Task of the same name, or its only Task. The address of a server may follow (`old/task at http://…`).
    Without the address, the scope at the run's own server is preferred.

    Args:
        others: the scopes of the ledger besides the run's own scope.
        name: the name.
        own: the run's own scope.

    Returns:
        `None` if only the run's own scope has the name.

    Raises:
        InvalidSettingError: no scope has the name, or several have.
    """
    label, _, address = name.strip().partition(_AT)
    named = [scope for scope in others if label in (scope.label, scope.full_label)]
    named = named or [scope for scope in others if (scope.pipeline, scope.task) == (label, own.task)]
    named = named or [scope for scope in others if scope.pipeline == label]
    if address:
        named = [scope for scope in named if is_same_server(scope.base_url, address.strip())]
    named = [scope for scope in named if scope.base_url == own.base_url] or named
    if len(named) == 1:
        return named[0]
    if named:
        names = ", ".join(f'"{scope.full_label}{_AT}{scope.base_url}"' for scope in named)
        raise InvalidSettingError(f'Answers cannot be taken from "{name}": several scopes match. Choose one: {names}.')
    if label in (own.label, own.full_label, own.pipeline) and not address:
        return None
    suggestion = did_you_mean(name, [scope.label for scope in others])
    raise InvalidSettingError(
        f'Answers cannot be taken from "{name}": the ledger has no such scope{suggestion} The command'
        " `distilabel-openai-batch jobs` lists the scopes."
    )


def name_source(others: Sequence[ScopeName], scope: ScopeName, own_address: str) -> str:
    """Return a short name by which `select_source` selects a scope among others.

    Args:
        others: the scopes of the ledger besides the run's own scope.
        scope: the scope.
        own_address: the address of the run's own scope. A name without an address prefers scopes at this address.
    """
    label = scope.label if sum(other.label == scope.label for other in others) == 1 else scope.full_label
    is_unique = sum(label in (other.label, other.full_label) for other in others) == 1
    return label if is_unique and scope.base_url == own_address else f"{label}{_AT}{scope.base_url}"
