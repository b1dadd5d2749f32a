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
from typing import Any

from distilabel.models.llms import OpenAILLM
from distilabel.typing import FormattedInput, GenerateOutput
from pydantic import TypeAdapter, ValidationError

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import BodyTemplate
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT, UntranslatableError
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.errors import InvalidParametersError
from distilabel_openai_batch.gc_pause import gc_paused
from distilabel_openai_batch.plugin.bounds import find_not_finite
from distilabel_openai_batch.plugin.sdk_stub import AnswerCall, CompletionView, calls_redirected
from distilabel_openai_batch.text import did_you_mean, is_unicode

# Validator of an input, as `OpenAILLM.agenerate` has.
_INPUT: TypeAdapter[Any] = TypeAdapter(FormattedInput)

# Roles of a chat's messages that the validator takes.
_ROLES = ("user", "system", "assistant")

# distilabel's own code for a chat completion, which a subclass may override.
_READ_CHAT = OpenAILLM._generations_from_openai_completion
_READ_STATISTICS = OpenAILLM._get_llm_statistics

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
) -> Iterator[APICall | Failure]:
    """Yield the call that `agenerate` would make for each input.

    Chats of one shape get bodies that differ in `messages` alone: `OpenAILLM` builds one, and the others are copies
    with other messages, in a tenth of the time.

    Args:
        llm: the LLM, loaded.
        inputs: chats or strings.
        num_generations: number of generations for each input.
        kwargs: parameters of `agenerate`.
        adapt: changes a call to the form that the model takes.

    Yields:
        A call, or a failure for an input that `OpenAILLM` refuses.
    """
    with gc_paused():
        calls_by_shape: dict[tuple[str, ...], tuple[APICall, str]] = {}
        for input in inputs:
            messages, shape = (None, None) if llm.structured_output else _validate(input)
            if shape in calls_by_shape:
                like, field = calls_by_shape[shape]
                body = {**like.body, field: messages}
                yield APICall(like.endpoint, body, None, like.template, None, like.has_default_limit)
                continue
            try:
                call = adapt(_run_until_call(llm, input, num_generations, kwargs))
            except Exception as error:
                # One bad input → only that row fails.
                yield Failure(f"The input cannot be made into a request: {error!r}")
                continue
            field = _chat_field(call)
            if shape and call.body.get(field) == messages:
                # A body that JSON cannot hold → no template; the session reports the error for each call.
                with suppress(ValueError):
                    template = BodyTemplate(call.body, field, call.identity, shape)
                    calls_by_shape[shape] = replace(call, template=template), field
            yield call


def reads_plain_chats(llm: OpenAILLM) -> bool:
    """Return whether an LLM reads chat completions by distilabel's own code, so that `read_plain_output` may do so."""
    readers = type(llm)
    return readers._generations_from_openai_completion is _READ_CHAT and readers._get_llm_statistics is _READ_STATISTICS


def read_plain_output(answer: Answer, num_generations: int) -> GenerateOutput | None:
    """Return the output that distilabel's own code would make of a chat completion of texts, in a tenth of the time.

    Args:
        answer: the completion.
        num_generations: the requested number of generations.

    Returns:
        The output; `None` if the completion has more than texts and counts of tokens, or if a text is missing.
    """
    chat = None if answer.choice_failures else answer.plain_chat
    if chat is None or len(chat.texts) < num_generations or not all(chat.texts):
        return None
    output: GenerateOutput = {
        "generations": chat.texts,
        "statistics": {"input_tokens": [chat.tokens_in], "output_tokens": [chat.tokens_out]},
    }
    return output


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


def _chat_shape(messages: Any) -> tuple[str, ...] | None:
    """Return a chat's roles, which decide everything in its body besides the messages; `None` for other inputs."""
    if not isinstance(messages, list) or not all(isinstance(message["content"], str) for message in messages):
        return None
    return tuple([message["role"] for message in messages])
