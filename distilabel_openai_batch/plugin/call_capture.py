"""Run `OpenAILLM`'s own code in two halves: up to the call of the API, and from the answer on.

Hours lie between the halves, too long to keep a coroutine waiting with all its data. So `agenerate` runs once for the
call and once for the output.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from itertools import chain
from operator import itemgetter
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.typing import FormattedInput, GenerateOutput
from pydantic import TypeAdapter, ValidationError

from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.plain_lines import read_plain_chats
from distilabel_openai_batch.api.requests import BodyTemplate
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT, UntranslatableError
from distilabel_openai_batch.engine.calls import APICall, CallGroup
from distilabel_openai_batch.errors import InvalidParametersError
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.plugin.bounds import find_not_finite
from distilabel_openai_batch.plugin.sdk_stub import AnswerCall, CompletionView, calls_redirected
from distilabel_openai_batch.text import did_you_mean, is_unicode

# Validator of an input, as `OpenAILLM.agenerate` has.
_INPUT: TypeAdapter[Any] = TypeAdapter(FormattedInput)

# Roles of a chat's messages that the validator takes.
_ROLES = frozenset(("user", "system", "assistant"))

# distilabel's own code for a chat completion, which a subclass may override.
_READ_CHAT = OpenAILLM._generations_from_openai_completion
_READ_STATISTICS = OpenAILLM._get_llm_statistics

_ROLE, _CONTENT = itemgetter("role"), itemgetter("content")

# Inputs that are looked at together. One unusual input costs the others the time of a look at each.
_INPUTS_PER_GROUP = 100

_EMPTY_CHAT = [{"role": "user", "content": ""}]


@types.coroutine
def _yield_call(call: APICall) -> Generator[APICall, CompletionView, CompletionView]:
    """Suspend `agenerate` with a call, which `_run_until_call` receives; an `AnswerCall`."""
    return (yield call)


def check_parameters(
    llm: OpenAILLM, num_generations: int, kwargs: dict[str, Any], adapt: Callable[[APICall], APICall] | None = None
) -> None:
    """Check the generation parameters by building a call for an empty input.

    Args:
        llm: the LLM, loaded.
        num_generations: number of generations for each input.
        kwargs: parameters of `agenerate`.
        adapt: see `capture_calls`, if it refuses the parameters of some chats.

    Raises:
        InvalidParametersError: `OpenAILLM` or `adapt` refuses the parameters, whatever the input is.
    """
    try:
        call = _run_until_call(llm, "", num_generations, kwargs)
        if adapt:
            adapt(_run_until_call(llm, _EMPTY_CHAT, num_generations, kwargs))
    except ValidationError as error:
        raise InvalidParametersError(describe_refusal(llm, error)) from None
    except UntranslatableError as error:
        raise InvalidParametersError(f"The generation parameters cannot be sent: {error}.") from None
    # JSON has no such numbers, and would send `null`.
    if isinstance(call, APICall) and (place := find_not_finite(call.body)):
        raise InvalidParametersError(f"The generation parameters must be finite numbers: {place}")


def describe_refusal(llm: OpenAILLM, error: ValidationError) -> str:
    """Return the message about generation parameters that an LLM refuses, with the probable name of a misspelt one.

    Args:
        llm: the LLM.
        error: the refusal of `agenerate`.
    """
    lines = error.errors()
    unknown = [str(line["loc"][0]) for line in lines if line["type"] == "unexpected_keyword_argument"]
    names = [name for name in signature(llm.agenerate).parameters if name not in ("input", "num_generations")]
    sentences = [f"`generation_kwargs` has no parameter `{name}`{did_you_mean(name, names)}" for name in unknown]
    if any(sentence.endswith(".") for sentence in sentences):
        sentences.append(
            f'Other parameters of the API go into `generation_kwargs={{"extra_body": {{"{unknown[0]}": …}}}}`.'
        )
    # A value that may have several types has a line for each.
    wrong = {str(line["loc"][0]): line["msg"] for line in reversed(lines) if str(line["loc"][0]) not in unknown}
    sentences += [f"`{name}` in `generation_kwargs` has a wrong value: {reason}." for name, reason in wrong.items()]
    return " ".join(sentences)


def capture_calls(
    llm: OpenAILLM,
    inputs: Sequence[FormattedInput],
    num_generations: int,
    kwargs: dict[str, Any],
    adapt: Callable[[APICall], APICall],
) -> Iterator[APICall | CallGroup | Failure]:
    """Yield the calls that `agenerate` would make for inputs.

    Chats of one shape get bodies that differ in `messages` alone: `OpenAILLM` builds one, and the others are copies
    with other messages, in a tenth of the time.

    Args:
        llm: the LLM, loaded.
        inputs: chats or strings.
        num_generations: number of generations for each input.
        kwargs: parameters of `agenerate`.
        adapt: changes a call to the form that the model takes.

    Yields:
        In the order of the inputs: a call, a group of calls for neighbouring chats of one shape, or a failure for an
        input that `OpenAILLM` refuses.
    """
    capture = _Capture(llm, num_generations, kwargs, adapt)
    with gc_paused():
        for start in range(0, len(inputs), _INPUTS_PER_GROUP):
            chats = inputs[start : start + _INPUTS_PER_GROUP]
            shape = None if llm.structured_output else _common_shape(chats)
            if shape and shape not in capture.likes:
                yield capture.capture(chats[0])
                chats = chats[1:]
            if shape in capture.likes and chats:
                yield CallGroup(capture.likes[shape], chats)
            else:
                yield from map(capture.capture, chats)


class _Capture:
    """The calls for the inputs of one LLM with one set of parameters; see `capture_calls`.

    Attributes:
        likes: a call with a template for each shape of chats so far.
    """

    def __init__(
        self,
        llm: OpenAILLM,
        num_generations: int,
        kwargs: dict[str, Any],
        adapt: Callable[[APICall], APICall],
    ) -> None:
        self._llm = llm
        self._num_generations = num_generations
        self._kwargs = kwargs
        self._adapt = adapt
        self.likes: dict[tuple[str, ...], APICall] = {}

    def capture(self, input: FormattedInput) -> APICall | Failure:
        """Return the call for an input, and keep a template for chats of the same shape."""
        messages, shape = (None, None) if self._llm.structured_output else _validate(input)
        if shape in self.likes:
            return CallGroup(self.likes[shape], [messages])[0]
        try:
            call = self._adapt(_run_until_call(self._llm, input, self._num_generations, self._kwargs))
        except Exception as error:
            # One bad input → only that row fails.
            return Failure(f"The input cannot be made into a request: {error!r}")
        field = _chat_field(call)
        if shape and call.body.get(field) == messages:
            # A body that JSON cannot hold → no template; the session reports the error for each call.
            with suppress(ValueError):
                self.likes[shape] = replace(call, template=BodyTemplate(call.body, field, call.identity, shape))
        return call


def read_plain_outputs(
    llm: OpenAILLM, outcomes: Sequence[Outcome], num_generations: int
) -> list[GenerateOutput | None]:
    """Return the outputs that distilabel's own code would make of chat completions of texts, in a tenth of the time.

    Args:
        llm: the LLM that requested the completions; its class may read completions in its own way.
        outcomes: the completions; other outcomes have no output.
        num_generations: the requested number of generations.

    Returns:
        For each outcome the output; `None` if the completion has more than texts and counts of tokens, if the token
        limit ended a text, or if a text is missing.
    """
    readers = type(llm)
    if (readers._generations_from_openai_completion, readers._get_llm_statistics) != (_READ_CHAT, _READ_STATISTICS):
        return [None] * len(outcomes)
    outputs: list[GenerateOutput | None] = []
    # A failure has no line, so no chat is read from it.
    lines = [outcome.line if type(outcome) is Answer and not outcome.choice_failures else b"" for outcome in outcomes]
    # A function that reads one chat would add a third to the time.
    for chat in read_plain_chats(lines):
        if chat is None:
            outputs.append(None)
            continue
        if len(chat.choices) == 1:
            [choice] = chat.choices
            texts = [] if choice.finish_reason == "length" else [choice.message.content]
        else:
            texts = [] if chat.is_limited else chat.texts
        if len(texts) < num_generations or not all(texts):
            outputs.append(None)
            continue
        usage = chat.usage
        output: GenerateOutput = {
            "generations": texts,
            "statistics": {"input_tokens": [usage.prompt_tokens], "output_tokens": [usage.completion_tokens]},
        }
        outputs.append(output)
    return outputs


def read_completion(
    llm: OpenAILLM,
    input: FormattedInput,
    num_generations: int,
    kwargs: dict[str, Any],
    completion: CompletionView,
) -> GenerateOutput:
    """Return the output that `agenerate` would make of a completion.

    Raises:
        Exception: the server's answer is no completion; the class depends on the part that is missing.
    """
    output: GenerateOutput
    if not isinstance(input, str):
        # `agenerate` would do nothing else with a chat's completion, in twice the time.
        output = llm._generations_from_openai_completion(completion)
        return output

    async def answer(call: APICall) -> CompletionView:
        return completion

    output = _run_until_call(llm, input, num_generations, kwargs, answer)
    return output


def _run_until_call(
    llm: OpenAILLM,
    input: FormattedInput,
    num_generations: int,
    kwargs: dict[str, Any],
    answer: AnswerCall = _yield_call,
) -> Any:
    """Run `agenerate` without an event loop until its call suspends the coroutine or `agenerate` returns.

    Several threads may run this for the same LLM, so no attribute of the LLM changes.

    Returns:
        The call that `answer` yields, or else the output of `agenerate`.
    """
    coroutine = llm.agenerate(input=input, num_generations=num_generations, **kwargs)
    try:
        with calls_redirected(answer):
            return coroutine.send(None)
    except StopIteration as returned:
        return returned.value
    finally:
        coroutine.close()


def _chat_field(call: APICall) -> str:
    """Return the field of a call's body that holds the chat. A chat of texts is equal at both endpoints."""
    return "input" if call.endpoint == RESPONSES_ENDPOINT else "messages"


def _validate(input: FormattedInput) -> tuple[Any, tuple[str, ...] | None]:
    """Validate an input as `OpenAILLM.agenerate` would.

    Returns:
        The validated input, `None` if `agenerate` has to see the input; and the shape of a chat, see `_chat_shape`.
    """
    if roles := _plain_roles(input):
        return input, roles
    try:
        messages = _INPUT.validate_python(input)
    except ValidationError:
        return None, None
    return messages, _chat_shape(messages)


def _plain_roles(input: FormattedInput) -> tuple[str, ...] | None:
    """Return the roles of a chat that validation would leave unchanged, in a fifth of the time; otherwise `None`."""
    if type(input) is not list:
        return None
    roles = []
    for message in input:
        if type(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if type(role) is not str or role not in _ROLES or type(content) is not str:
            return None
        # A text beyond ASCII may have surrogates, which validation refuses.
        if not (content.isascii() or is_unicode(content)):
            return None
        roles.append(role)
    return tuple(roles)


def _common_shape(chats: Sequence[FormattedInput]) -> tuple[str, ...] | None:
    """Return the shape of chats that `_plain_roles` gives each of them, in a tenth of the time; `None` if they differ.

    Args:
        chats: inputs of any kind.
    """
    if set(map(type, chats)) != {list} or len(set(map(len, chats))) != 1:
        return None
    messages = [*chain.from_iterable(chats)]
    if set(map(type, messages)) != {dict} or set(map(len, messages)) != {2}:
        return None
    try:
        contents = [*map(_CONTENT, messages)]
        roles = [*map(_ROLE, messages)]
    except KeyError:
        return None
    length = len(chats[0])
    if set(map(type, contents + roles)) != {str} or roles != roles[:length] * len(chats):
        return None
    # A text beyond ASCII may have surrogates, which validation refuses.
    if not all(map(is_unicode, [content for content in contents if not content.isascii()])):
        return None
    return tuple(roles[:length]) if _ROLES.issuperset(roles[:length]) else None


def _chat_shape(messages: Any) -> tuple[str, ...] | None:
    """Return a chat's roles, which decide everything in its body besides the messages; `None` for other inputs."""
    if not isinstance(messages, list) or not all(isinstance(message["content"], str) for message in messages):
        return None
    return tuple([message["role"] for message in messages])
