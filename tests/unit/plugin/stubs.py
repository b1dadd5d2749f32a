"""LLMs without a server, for the tests of `plugin/`."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import httpx
import orjson
from distilabel.models.llms import OpenAILLM
from openai import AsyncOpenAI

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.engine.calls import each_call
from distilabel_openai_batch.plugin.sdk_stub import ClientStub

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
CONNECTION = {"model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-secret"}

# Loading an LLM builds two clients of the SDK, which takes longer than all else here → load once.
_SYNCHRONOUS, _BATCH = OpenAILLM(**CONNECTION), OpenAIBatchLLM(**CONNECTION)
_SYNCHRONOUS.load()
_BATCH.load()


def synchronous_llm(answer: dict) -> tuple[OpenAILLM, list[tuple[str, dict]]]:
    """Return distilabel's own LLM with a server that always gives one answer, and a list of the bodies it sends."""
    sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, orjson.loads(request.content)))
        return httpx.Response(200, json=answer)

    http_client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    _SYNCHRONOUS._aclient = AsyncOpenAI(base_url=CONNECTION["base_url"], api_key="sk-secret", http_client=http_client)
    return _SYNCHRONOUS, sent


def loaded_llm(**fields) -> OpenAIBatchLLM:
    """Return a loaded LLM of ours with the given fields."""
    llm = _BATCH.model_copy(update=fields)
    llm._aclient = ClientStub(llm._complete)
    return llm


class StubSession:
    """A session that answers calls with given outcomes: one for each call, or the same for every call.

    Args:
        outcomes: the outcomes.
    """

    def __init__(self, *outcomes: Answer | Failure) -> None:
        self._outcomes = outcomes
        self.sent: list[tuple[str, dict]] = []
        """Endpoint and body of each call."""

    async def submit(self, calls, reader=None):
        calls = list(each_call(calls))
        sent = [
            (call.endpoint, orjson.loads(bytes(call.build("", "")[0])))
            for call in calls
            if not isinstance(call, Failure)
        ]
        self.sent += sent
        answers = iter(self._outcomes if len(self._outcomes) > 1 else self._outcomes * len(sent))
        outcomes = [call if isinstance(call, Failure) else next(answers) for call in calls]
        if reader:
            reader.read_all(outcomes, "stub-0")
        return outcomes


class EchoSession:
    """A session that answers each chat with its last message, and lets other threads run between two calls."""

    async def submit(self, calls, reader=None):
        outcomes = []
        for call in each_call(calls):
            time.sleep(0)
            outcomes.append(Answer.of(completion(call.body["messages"][-1]["content"])))
        if reader:
            reader.read_all(outcomes, "echo-0")
        return outcomes


class StubSessions:
    """Sessions of a client whose event loops all share one session.

    Args:
        session: the session.
    """

    def __init__(self, session: StubSession) -> None:
        self._session = session

    @asynccontextmanager
    async def use(self):
        yield self._session


def batch_llm(*outcomes: Answer | Failure) -> tuple[OpenAIBatchLLM, list[tuple[str, dict]]]:
    """Return our LLM with a `StubSession`, and the list of calls that the session gets."""
    session = StubSession(*outcomes)
    _BATCH.use_sessions(StubSessions(session))
    return _BATCH, session.sent


def completion(*contents: str | None, logprobs: list | None = None, usage: dict | None = None) -> dict:
    """Build a chat completion with a choice for each content."""
    choices = [
        {
            "index": index,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content},
            "logprobs": {"content": logprobs} if logprobs else None,
        }
        for index, content in enumerate(contents)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": choices,
    } | ({"usage": usage} if usage else {})
