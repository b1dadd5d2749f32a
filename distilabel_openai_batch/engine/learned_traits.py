"""Traits of models that a server's refusals show: deployments on Azure and aliases of gateways hide the model.

A refused request is not billed. It is submitted again under the same `custom_id` with the parameters that the model
takes, at the endpoint that serves the model, and so are all later requests of the model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from distilabel_openai_batch.api.encoding import decode_json, encode_body
from distilabel_openai_batch.api.model_traits import (
    CHAT_PARAMETER,
    find_refused_parameter,
    fit_body,
    fit_response,
    traits_of_refusals,
)
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT, UntranslatableError, translate_request
from distilabel_openai_batch.api.service_tiers import TIER_PARAMETER
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.refusals import RefusalStore
from distilabel_openai_batch.engine.scratch import BodyStore

_CHAT, _RESPONSES = "/chat/completions", "/responses"

# Parameters that only models which reason refuse, at one of the endpoints.
_REFUSED_BY_REASONING = frozenset({"max_tokens", "temperature", "top_p"})

_NO_OBSERVER = Observer()


class LearnedTraits:
    """Traits of one server's models, learned from refusals in this run and in earlier runs.

    Args:
        refusals: the refusals of earlier runs; receives each new refusal.
        bodies: stores changed bodies.
        observer: receives each new refusal.
        responses_endpoint: the server's path of the Responses API.

    Attributes:
        refused: refused parameters by the model's name.
    """

    def __init__(
        self,
        refusals: RefusalStore,
        bodies: BodyStore,
        observer: Observer,
        responses_endpoint: str = RESPONSES_ENDPOINT,
    ) -> None:
        self._responses_endpoint = responses_endpoint
        self._refusals = refusals
        self._bodies = bodies
        self._observer = observer
        self.refused = group_refusals(refusals.load())

    def revise(self, request: Request, failure: Failure) -> Request | None:
        """Learn from the failure of a request, and report a new refusal.

        Returns:
            The request with parameters that its model takes; `None` if the failure is no refusal of a parameter, or if
            no other parameter helps.
        """
        return self._revise(request, failure, self._observer)

    def revise_known(self, requests: Sequence[Request], failures: Mapping[str, Failure]) -> Sequence[Request]:
        """Learn from failures of earlier runs, before the requests are submitted again.

        The ledger may have a refusal as a failure alone: another machine's batch was adopted, or an older release
        recorded the failure.

        Args:
            requests: the requests that are about to be submitted.
            failures: the failures of some of these, by `custom_id`.

        Returns:
            The requests with the parameters that their models take.
        """
        # Nearly all failures of a batch have one message, and each revision decodes a body.
        examples: dict[tuple[str, str], tuple[Request, Failure]] = {}
        for request in requests if failures else ():
            if failure := failures.get(request.custom_id):
                examples.setdefault((request.model, failure.message), (request, failure))
        is_revised = [self.revise(request, failure) for request, failure in examples.values()]
        return [self.fit(request) for request in requests] if any(is_revised) else requests

    def learn(self, request: Request, failure: Failure) -> None:
        """Learn from the failure of a request in a run that submits nothing, for the next run that submits."""
        self._revise(request, failure, _NO_OBSERVER)

    def _revise(self, request: Request, failure: Failure, observer: Observer) -> Request | None:
        if failure.status_code not in (400, 404) or not request.endpoint.endswith((_CHAT, _RESPONSES)):
            return None
        parameter = find_refused_parameter(failure.message, request.endpoint)
        if parameter is None:
            return None
        refused = self.refused.setdefault(request.model, set())
        is_new = parameter not in refused
        refused.add(parameter)
        revised = self.fit(request)
        if is_new and not (parameter == CHAT_PARAMETER and revised is request):
            observer.on_parameter_refused(request.model, parameter)
            self._refusals.record(request.model, parameter)
        return None if revised is request else revised

    def fit(self, request: Request) -> Request:
        """Return a request with the parameters that its model takes; the request itself if nothing changes."""
        if request.model not in self.refused:
            return request
        body = bytes(request.body)
        endpoint, fitted = self.fit_call(
            request.model, request.endpoint, body, has_default_limit=request.has_default_limit
        )
        if fitted is body:
            return request
        return msgspec.structs.replace(request, endpoint=endpoint, body=self._bodies.add(fitted))

    def fit_call(self, model: str, endpoint: str, body: bytes, *, has_default_limit: bool) -> tuple[str, bytes]:
        """Return the endpoint that serves a model, and the JSON of a body with the parameters that the model takes.

        Args:
            model: name of the model.
            endpoint: see the function `fit_call`, as the other arguments and the result.
            body: the body as JSON.
            has_default_limit: see `Request`.
        """
        refused = self.refused.get(model)
        if not refused:
            return endpoint, body
        return fit_call(refused, endpoint, body, self._responses_endpoint, has_default_limit=has_default_limit)


def group_refusals(refusals: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the refused parameters that show a trait of a model, by the model's name.

    Args:
        refusals: pairs of a model's name and a refused parameter, as the ledger has the pairs.
    """
    refused: dict[str, set[str]] = {}
    for model, parameter in refusals:
        if parameter != TIER_PARAMETER:
            refused.setdefault(model, set()).add(parameter)
    return refused


def fit_call(
    refused: Collection[str], endpoint: str, body: bytes, responses_endpoint: str, *, has_default_limit: bool
) -> tuple[str, bytes]:
    """Return the endpoint that serves a model, and the JSON of a body with the parameters that the model takes.

    Args:
        refused: the parameters that the server refused for the model.
        endpoint: the server's path of the endpoint.
        body: the body as JSON.
        responses_endpoint: the server's path of the Responses API.
        has_default_limit: see `Request`.

    Returns:
        The path and the JSON; the given path and bytes if nothing changes.
    """
    if not endpoint.endswith((_CHAT, _RESPONSES)):
        return endpoint, body
    decoded = decode_json(body)
    if endpoint.endswith(_CHAT) and CHAT_PARAMETER in refused:
        # A chat that the Responses API cannot express → the server refuses the chat.
        with suppress(UntranslatableError):
            translated = fit_response(translate_request(decoded), has_default_limit=has_default_limit)
            return responses_endpoint, encode_body(translated)
    if endpoint.endswith(_CHAT):
        fitted = fit_body(decoded, traits_of_refusals(refused), has_default_limit=has_default_limit)
    else:
        is_reasoning = bool(_REFUSED_BY_REASONING.intersection(refused))
        fitted = fit_response(decoded, has_default_limit=has_default_limit) if is_reasoning else decoded
    return endpoint, body if fitted == decoded else encode_body(fitted)
