"""Entry point of the sandbox's model: one function that answers a request, in a batch or synchronously."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..errors import ApiError
from .chat import chat_completion
from .completions import legacy_completion
from .embeddings import embedding_list
from .hashing import body_digest, canonical_json
from .images import image_list
from .moderations import moderation
from .parameters import check_messages, check_parameters, parameters_without_messages
from .responses import response
from .sampling import TextLength

_CHAT_ENDPOINTS: dict[str, Callable[[dict[str, Any], str, str, int, TextLength], dict[str, Any]]] = {
    "/v1/chat/completions": chat_completion,
    "/v1/responses": response,
}
_OTHER_ENDPOINTS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "/v1/completions": legacy_completion,
    "/v1/embeddings": embedding_list,
    "/v1/images/generations": image_list,
    "/v1/moderations": moderation,
}
# Maximum number of sets of parameters that a model remembers as accepted; a set may hold a large schema.
_MAX_ACCEPTED = 100


class Catalogue(Protocol):
    """Models of a server."""

    @property
    def reasoning_tokens(self) -> int:
        """Number of tokens that reasoning takes at medium effort."""

    @property
    def answer_characters(self) -> int | None:
        """Maximum number of characters of a chat's text."""

    @property
    def answer_tokens(self) -> int:
        """Least number of tokens of a chat's plain text."""

    def has_model(self, model: str) -> bool:
        """Return `True` if a model of this name exists."""

    def resolve_model(self, model: str) -> str:
        """Return the name of the model behind a name."""


class ModelAnswer(NamedTuple):
    """Answer to one request.

    Attributes:
        status: HTTP status.
        body: body of the reply.
        headers: extra headers of a synchronous reply; `None` for none.
    """

    status: int
    body: dict[str, Any]
    headers: dict[str, str] | None = None


class Model:
    """Model that answers the requests of one endpoint.

    The requests of a batch often differ in their messages alone, so the model checks their other parameters once.

    Args:
        endpoint: path of the endpoint, such as `/v1/chat/completions`.
        catalogue: models of the server.
    """

    def __init__(self, endpoint: str, catalogue: Catalogue) -> None:
        self._endpoint = endpoint
        self._catalogue = catalogue
        self._length = TextLength(catalogue.answer_characters, catalogue.answer_tokens)
        # Name of the model behind the name in the body, by the parameters that passed all checks.
        self._accepted: dict[bytes, str] = {}

    def answer(self, body: dict[str, Any], digest: str | None = None) -> ModelAnswer:
        """Answer a request; a bad request is answered with the error that OpenAI returns.

        Args:
            body: body of the request.
            digest: SHA-256 of `canonical_json(body)`, if the caller has computed the digest already.
        """
        endpoint = self._endpoint
        try:
            model = self._accept(body)
            digest = body_digest(canonical_json(body)) if digest is None else digest
            if endpoint in _CHAT_ENDPOINTS:
                reasoning_tokens = self._catalogue.reasoning_tokens
                answer = _CHAT_ENDPOINTS[endpoint](body, digest, model, reasoning_tokens, self._length)
            else:
                answer = _OTHER_ENDPOINTS[endpoint](body, digest)
            return ModelAnswer(200, answer)
        except ApiError as error:
            return ModelAnswer(error.status, error.body())

    def _accept(self, body: dict[str, Any]) -> str:
        """Check a body, and return the name of the model behind the name in the body.

        Raises:
            ApiError: if a parameter is missing, unknown or out of bounds, or the model does not exist.
        """
        others = parameters_without_messages(body) if self._endpoint == "/v1/chat/completions" else None
        if others is not None:
            model = self._accepted.get(others)
            if model is not None:
                check_messages(body)
                return model
        model = self._check(body)
        if others is not None and len(self._accepted) < _MAX_ACCEPTED:
            self._accepted[others] = model
        return model

    def _check(self, body: dict[str, Any]) -> str:
        """Check a body by all rules, and return the name of the model behind the name in the body."""
        catalogue = self._catalogue
        name = body.get("model")
        model = catalogue.resolve_model(name) if isinstance(name, str) else ""
        check_parameters(self._endpoint, body, model)
        if not catalogue.has_model(body["model"]):
            message = f"The model `{body['model']}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")
        return model


def answer_request(endpoint: str, body: dict[str, Any], catalogue: Catalogue, digest: str | None = None) -> ModelAnswer:
    """Answer one request, see `Model`."""
    return Model(endpoint, catalogue).answer(body, digest)
