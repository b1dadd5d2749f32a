"""A stand-in for the SDK's client: takes the body that `OpenAILLM` would send, and hands it an answer."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator, ItemsView
from typing import Any

from distilabel_openai_batch.engine.calls import Call
from distilabel_openai_batch.structured_output.schema import StructuredOutput

_CHAT = "/v1/chat/completions"
_COMPLETIONS = "/v1/completions"

# What JSON nests in.
_CONTAINERS = (dict, list)


class _Reading:
    """A completion's JSON, read through attributes as `OpenAILLM` reads the SDK's objects.

    As lenient as they are: what a server leaves out is `None`. Building theirs takes twenty times as long as all else
    that is done with an answer.
    """

    def __getattr__(self, name: str) -> None:
        """Asked for what is not there."""

    # A property, so that a field of that name does not take its place: a token of the log probabilities may have it.
    @property
    def items(self) -> Callable[[], ItemsView[str, Any]]:
        """The pairs of what the SDK leaves a dictionary: the legacy endpoint's log probabilities."""
        return vars(self).items


def _read(value: Any) -> Any:
    """Makes JSON readable through attributes; its dictionaries become those of the objects."""
    # `type`, where `isinstance` would take half as long again: a parser makes no subclasses.
    if type(value) is list:
        return [_read(part) for part in value]
    if type(value) is not dict:
        return value
    for name, part in value.items():
        if type(part) in _CONTAINERS:
            value[name] = _read(part)
    reading = _Reading()
    reading.__dict__ = value
    return reading


class _Client:
    """Stands where `OpenAILLM` has its `AsyncOpenAI`, and gives each call to `answer`.

    So `OpenAILLM`'s own code builds each body and reads each answer, and what it does is never written twice.

    Args:
        answer: is given each call.
        wanted: what the answers to chats have to look like, if anything.
    """

    def __init__(self, answer: Callable[[Call], Awaitable[_Reading]], wanted: StructuredOutput | None = None) -> None:
        self.answer = answer
        self.chat = types.SimpleNamespace(completions=_Endpoint(_CHAT, answer, wanted))
        self.completions = _Endpoint(_COMPLETIONS, answer)


class _Endpoint:
    def __init__(
        self, path: str, answer: Callable[[Call], Awaitable[_Reading]], wanted: StructuredOutput | None = None
    ) -> None:
        self._path = path
        self._answer = answer
        self._wanted = wanted

    async def create(self, *, extra_body: dict[str, Any] | None = None, **body: Any) -> _Reading:
        # The SDK merges them so.
        body |= extra_body or {}
        body = self._wanted.asked_for(body) if self._wanted else body
        return await self._answer(Call(self._path, body, self._wanted))


@types.coroutine
def _hand_over(call: Call) -> Generator[Call, _Reading, _Reading]:
    """Gives the call to whoever drives the coroutine, who sends back the answer."""
    return (yield call)


_HANDING_OVER = _Client(_hand_over)
