"""Stub of the SDK's client: passes on the body that `OpenAILLM` would send, and returns an answer to `OpenAILLM`."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, ItemsView, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.structured_output.schema import StructuredOutput

CHAT_ENDPOINT = "/v1/chat/completions"
COMPLETIONS_ENDPOINT = "/v1/completions"

DEFAULT_LIMIT_MARK = "distilabel_openai_batch_default_limit"
"""Key of `extra_body` that marks a call without `max_new_tokens`: `OpenAILLM` sends its default limit then.

`OpenAILLM` passes on nothing else to the client. The stub removes the key.
"""

# Types of a JSON value that holds others.
_CONTAINERS = (dict, list)


class CompletionView:
    """View of a completion's JSON through attributes, as `OpenAILLM` reads the SDK's objects.

    A field that the server left out is `None`, as in the SDK's objects. Building the SDK's objects would take twenty
    times as long as all other work on an answer.
    """

    def __getattr__(self, name: str) -> None:
        """Return `None` for a field that the server left out."""

    # A property, because the log probabilities may hold a token `items` → the field would hide a method.
    @property
    def items(self) -> Callable[[], ItemsView[str, Any]]:
        """The method `items` of the dictionary below, which the SDK keeps for the legacy log probabilities."""
        return vars(self).items


def view(value: Any, in_logprobs: bool = False) -> Any:
    """Turn JSON into views, in place: each dictionary becomes the `__dict__` of a `CompletionView`.

    The content of a message stays JSON if it is a list of parts, as in the SDK's objects: the content becomes a
    generation.

    Args:
        value: the JSON.
        in_logprobs: whether the JSON is a part of log probabilities, whose field `content` holds objects of the SDK.
    """
    # The JSON parser makes no subclasses → `type` is enough, and `isinstance` would take half as long again.
    if type(value) is list:
        return [view(part, in_logprobs) for part in value]
    if type(value) is not dict:
        return value
    for name, part in value.items():
        if type(part) in _CONTAINERS and (in_logprobs or name != "content"):
            value[name] = view(part, in_logprobs or name == "logprobs")
    completion = CompletionView()
    completion.__dict__ = value
    return completion


AnswerCall = Callable[[APICall], Awaitable[CompletionView]]
"""Function that returns the completion for a call."""

_redirected_answer: ContextVar[AnswerCall | None] = ContextVar("redirected_answer", default=None)


@contextmanager
def calls_redirected(answer: AnswerCall) -> Iterator[None]:
    """Pass the calls of this context to another function, whichever `ClientStub` receives them.

    The context is that of one thread and one task of an event loop, so other threads may use the same LLM meanwhile.
    """
    token = _redirected_answer.set(answer)
    try:
        yield
    finally:
        _redirected_answer.reset(token)


class ClientStub:
    """Replacement of `OpenAILLM`'s `AsyncOpenAI` that passes each call to a function.

    With the stub `OpenAILLM`'s own code builds each body and reads each answer.

    Args:
        answer: returns the completion for a call.
        structured_output: the format that chats have to ask for; `None` for plain text.
    """

    def __init__(
        self,
        answer: AnswerCall,
        structured_output: StructuredOutput | None = None,
    ) -> None:
        self.answer = answer
        self.chat = types.SimpleNamespace(completions=_EndpointStub(CHAT_ENDPOINT, answer, structured_output))
        self.completions = _EndpointStub(COMPLETIONS_ENDPOINT, answer)


class _EndpointStub:
    def __init__(
        self,
        path: str,
        answer: AnswerCall,
        structured_output: StructuredOutput | None = None,
    ) -> None:
        self._path = path
        self._answer = answer
        self._structured_output = structured_output

    async def create(self, *, extra_body: dict[str, Any] | None = None, **body: Any) -> CompletionView:
        # `extra_body` overrides other parameters, as in the SDK.
        body |= extra_body or {}
        has_default_limit = body.pop(DEFAULT_LIMIT_MARK, None) is not None
        body = self._structured_output.apply_to(body) if self._structured_output else body
        answer = _redirected_answer.get() or self._answer
        return await answer(APICall(self._path, body, self._structured_output, has_default_limit=has_default_limit))
