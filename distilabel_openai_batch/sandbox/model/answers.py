"""Entry point of the sandbox's model: one function that answers a request, in a batch or synchronously."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import orjson

from ..errors import ApiError
from .chat import Chat
from .completions import legacy_completion
from .embeddings import embedding_list
from .hashing import body_digest, canonical_json
from .images import image_list
from .moderations import moderation
from .parameters import are_checked_apart, check_messages, check_parameters
from .responses import response
from .sampling import TextLength

_CHAT = "/v1/chat/completions"
_RESPONSES = "/v1/responses"
_OTHER_ENDPOINTS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "/v1/completions": legacy_completion,
    "/v1/embeddings": embedding_list,
    "/v1/images/generations": image_list,
    "/v1/moderations": moderation,
}
# Maximum number of chats that a model remembers; the parameters of a chat may hold a large schema.
_MAX_CHATS = 100


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

    The requests of a batch often differ in their messages alone, so the model checks and reads their other parameters
    once.

    Args:
        endpoint: path of the endpoint, such as `/v1/chat/completions`.
        catalogue: models of the server.
    """

    def __init__(self, endpoint: str, catalogue: Catalogue) -> None:
        self._endpoint = endpoint
        self._catalogue = catalogue
        self._length = TextLength(catalogue.answer_characters, catalogue.answer_tokens)
        # Chats by their parameters, which passed all checks.
        self._chats: dict[bytes, Chat] = {}

    def answer(self, body: dict[str, Any], digest: str | None = None) -> ModelAnswer:
        """Answer a request; a bad request is answered with the error that OpenAI returns.

        Args:
            body: body of the request.
            digest: SHA-256 of `canonical_json(body)`, if the caller has computed the digest already.
        """
        try:
            digest = body_digest(canonical_json(body)) if digest is None else digest
            if self._endpoint == _CHAT:
                return ModelAnswer(200, self._find_chat(body).complete(body["messages"], digest))
            model = self._check(body)
            if self._endpoint == _RESPONSES:
                return ModelAnswer(200, response(body, digest, model, self._catalogue.reasoning_tokens, self._length))
            return ModelAnswer(200, _OTHER_ENDPOINTS[self._endpoint](body, digest))
        except ApiError as error:
            return ModelAnswer(error.status, error.body())

    def _find_chat(self, body: dict[str, Any]) -> Chat:
        """Return the chat to which a request belongs, after the check of the request.

        Raises:
            ApiError: if a parameter is missing, unknown or out of bounds, or the model does not exist.
        """
        parameters = {name: value for name, value in body.items() if name != "messages"}
        key = orjson.dumps(parameters)
        chat = self._chats.get(key)
        if chat is not None:
            check_messages(body)
            return chat
        chat = Chat(parameters, self._check(body), self._catalogue.reasoning_tokens, self._length)
        if len(self._chats) < _MAX_CHATS and are_checked_apart(parameters):
            self._chats[key] = chat
        return chat

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
