"""Entry point of the sandbox's model: one function that answers a request, in a batch or synchronously."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import ApiError
from .chat import chat_completion
from .completions import legacy_completion
from .embeddings import embedding_list
from .hashing import body_digest, canonical_json
from .images import image_list
from .moderations import moderation
from .parameters import check_parameters
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


@dataclass(frozen=True)
class ModelAnswer:
    """Answer to one request.

    Attributes:
        status: HTTP status.
        body: body of the reply.
        headers: extra headers of a synchronous reply; `None` for none.
    """

    status: int
    body: dict[str, Any]
    headers: dict[str, str] | None = None


def answer_request(
    endpoint: str, body: dict[str, Any], catalogue: Catalogue, serialised: bytes | None = None
) -> ModelAnswer:
    """Answer a request; a bad request is answered with the error that OpenAI returns.

    Args:
        endpoint: path of the endpoint, such as `/v1/chat/completions`.
        body: body of the request.
        catalogue: models of the server.
        serialised: `canonical_json(body)`, if the caller has computed the bytes already.
    """
    try:
        name = body.get("model")
        model = catalogue.resolve_model(name) if isinstance(name, str) else ""
        check_parameters(endpoint, body, model)
        if not catalogue.has_model(body["model"]):
            message = f"The model `{body['model']}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found")
        digest = body_digest(canonical_json(body) if serialised is None else serialised)
        if endpoint in _CHAT_ENDPOINTS:
            length = TextLength(catalogue.answer_characters, catalogue.answer_tokens)
            return ModelAnswer(200, _CHAT_ENDPOINTS[endpoint](body, digest, model, catalogue.reasoning_tokens, length))
        return ModelAnswer(200, _OTHER_ENDPOINTS[endpoint](body, digest))
    except ApiError as error:
        return ModelAnswer(error.status, error.body())
