"""The parameters of a request body: which there are, what they may be, and what OpenAI says when they are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import ApiError
from .schemas import check_strict

# From OpenAI's OpenAPI description, 2026 edition. (As lists they would take a line for each name.)
_KNOWN = {
    "/v1/chat/completions": frozenset(
        """
        messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens
        max_tokens metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
        prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed
        service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity
        web_search_options
        """.split()  # noqa: SIM905
    ),
    "/v1/completions": frozenset(
        """
        model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream
        stream_options suffix temperature top_p user
        """.split()  # noqa: SIM905
    ),
    "/v1/embeddings": frozenset({"input", "model", "dimensions", "encoding_format", "user"}),
}
ENDPOINTS = frozenset(_KNOWN)


@dataclass(frozen=True)
class _Bounds:
    """What a number may be."""

    word: str
    least: float
    most: float | None


_CHAT_NUMBERS = {
    "n": _Bounds("integer", 1, 128),
    "temperature": _Bounds("decimal", 0, 2),
    "top_p": _Bounds("decimal", 0, 1),
    "frequency_penalty": _Bounds("decimal", -2, 2),
    "presence_penalty": _Bounds("decimal", -2, 2),
    "max_tokens": _Bounds("integer", 1, None),
    "max_completion_tokens": _Bounds("integer", 1, None),
    "top_logprobs": _Bounds("integer", 0, 20),
}
# The bounds of the API reference.
_NUMBERS = {
    "/v1/chat/completions": _CHAT_NUMBERS,
    "/v1/completions": _CHAT_NUMBERS
    | {
        "best_of": _Bounds("integer", 0, 20),
        "max_tokens": _Bounds("integer", 0, None),
        "logprobs": _Bounds("integer", 0, 5),
    },
    "/v1/embeddings": {"dimensions": _Bounds("integer", 1, 3_072)},
}
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PARTS = ("text", "image_url", "input_audio", "file", "refusal")
# These models think before they answer, and take other parameters.
_REASONING = re.compile(r"o\d|gpt-5(?!.*chat)")
_NO_SAMPLING = re.compile(r"o3-mini|o4-mini")
_FIXED_TEMPERATURE = re.compile(r"o\d|gpt-5(-(?!chat)|$)")


def given(body: dict[str, Any], name: str, default: Any) -> Any:
    """Returns a parameter; a null counts as not given, as it does for OpenAI."""
    value = body.get(name)
    return default if value is None else value


def check(endpoint: str, body: dict[str, Any]) -> None:
    """Checks a request body.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: the body.

    Raises:
        ApiError: as OpenAI would answer.
    """
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise ApiError(400, "you must provide a model parameter")
    if not body.keys() <= _KNOWN[endpoint]:
        unknown = [name for name in body if name not in _KNOWN[endpoint]]
        plural = "s" if len(unknown) > 1 else ""
        raise ApiError(400, f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
    numbers = _NUMBERS[endpoint]
    for name in body.keys() & numbers.keys():
        if body[name] is not None:
            _check_number(name, body[name], numbers[name])
    if body.get("stream"):
        raise ApiError(400, "The sandbox does not stream.", param="stream", code="unsupported_parameter")
    _check_stop(body.get("stop"))
    if endpoint == "/v1/chat/completions":
        _check_chat(body)
    elif endpoint == "/v1/completions":
        _check_completion(body)
    else:
        _check_embedding(body)


def _kind(value: Any) -> str:
    """Returns OpenAI's name for the type of a JSON value."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def _wrong_type(param: str, expected: str, value: Any) -> ApiError:
    message = f"Invalid type for '{param}': expected {expected}, but got {_kind(value)} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def _missing(param: str) -> ApiError:
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _empty_array(param: str) -> ApiError:
    message = (
        f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    )
    return ApiError(400, message, param=param, code="empty_array")


def _check_number(name: str, value: Any, bounds: _Bounds) -> None:
    word = bounds.word
    if isinstance(value, bool) or not isinstance(value, int if word == "integer" else (int, float)):
        raise _wrong_type(name, f"{'an' if word == 'integer' else 'a'} {word}", value)
    if value < bounds.least:
        wrong, code, sign, bound = "below minimum", "below_min", ">=", bounds.least
    elif bounds.most is not None and value > bounds.most:
        wrong, code, sign, bound = "above maximum", "above_max", "<=", bounds.most
    else:
        return
    message = f"Invalid '{name}': {word} {wrong} value. Expected a value {sign} {bound}, but got {value} instead."
    raise ApiError(400, message, param=name, code=f"{word}_{code}_value")


def _check_stop(stop: Any) -> None:
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(mark, str) for mark in stop):
        raise _wrong_type("stop", "one of an array of strings or a string", stop)
    if len(stop) > 4:
        message = (
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            f"but got an array with length {len(stop)} instead."
        )
        raise ApiError(400, message, param="stop", code="array_above_max_length")


def _check_chat(body: dict[str, Any]) -> None:
    _check_messages(body)
    if body.get("logprobs") is not None and not isinstance(body["logprobs"], bool):
        raise _wrong_type("logprobs", "a boolean", body["logprobs"])
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError(400, message, param="top_logprobs")
    _check_limits(body)
    _check_tools(body)
    if body.get("response_format") is not None:
        _check_response_format(body)


def _check_messages(body: dict[str, Any]) -> None:
    if "messages" not in body:
        raise _missing("messages")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise _wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise _empty_array("messages")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _wrong_type(where, "an object", message)
        if "role" not in message:
            raise _missing(f"{where}.role")
        if message["role"] not in _ROLES:
            raise _invalid_value(f"{where}.role", message["role"], _ROLES)
        content = message.get("content")
        if isinstance(content, str):
            continue
        if isinstance(content, list):
            for place, part in enumerate(content):
                kind = part.get("type") if isinstance(part, dict) else part
                if kind not in _PARTS:
                    raise _invalid_value(f"{where}.content[{place}].type", kind, _PARTS)
        elif content is not None or message["role"] != "assistant":
            expected = "Invalid value for 'content': expected a string, got " + _kind(content).split()[-1]
            raise ApiError(400, f"{expected}.", param=f"messages.[{index}].content")


def _invalid_value(param: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    listed = ", ".join(f"'{name}'" for name in supported[:-1]) + f", and '{supported[-1]}'"
    return ApiError(
        400, f"Invalid value: '{value}'. Supported values are: {listed}.", param=param, code="invalid_value"
    )


def _check_limits(body: dict[str, Any]) -> None:
    """Checks the parameters that depend on the model's family."""
    if body.get("max_tokens") is not None:
        if _REASONING.match(body["model"]):
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                + "Use 'max_completion_tokens' instead."
            )
            raise ApiError(400, message, param="max_tokens", code="unsupported_parameter")
        if body.get("max_completion_tokens") is not None:
            message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
            raise ApiError(400, message, code="invalid_parameter_combination")
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if body.get(name) is not None and _NO_SAMPLING.match(body["model"]):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise ApiError(400, message, param=name, code="unsupported_parameter")
    temperature = given(body, "temperature", 1)
    if temperature != 1 and _FIXED_TEMPERATURE.match(body["model"]):
        message = (
            f"Unsupported value: 'temperature' does not support {temperature} with this model. "
            "Only the default (1) value is supported."
        )
        raise ApiError(400, message, param="temperature", code="unsupported_value")


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    choice = body.get("tool_choice")
    if tools is None:
        if choice is not None:
            message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
            raise ApiError(400, message, param="tool_choice")
        return
    if not isinstance(tools, list):
        raise _wrong_type("tools", "an array of objects", tools)
    if not tools:
        message = (
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise ApiError(400, message, param="tools", code="empty_array")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _missing(
                f"tools[{index}].function" if not isinstance(function, dict) else f"tools[{index}].function.name"
            )
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise _invalid_value("tool_choice", choice, ("none", "auto", "required"))
    if isinstance(choice, dict):
        name = given(choice, "function", {}).get("name")
        if all(tool["function"]["name"] != name for tool in tools):
            raise ApiError(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")


def _check_response_format(body: dict[str, Any]) -> None:
    wanted = body["response_format"]
    if not isinstance(wanted, dict):
        raise _wrong_type("response_format", "an object", wanted)
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise _invalid_value("response_format.type", kind, ("json_object", "json_schema", "text"))
    if kind == "json_object" and "json" not in str(body["messages"]).lower():
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise ApiError(400, message, param="messages")
    if kind == "json_schema":
        spec = wanted.get("json_schema")
        if not isinstance(spec, dict):
            raise _missing("response_format.json_schema")
        for name in ("name", "schema"):
            if name not in spec:
                raise _missing(f"response_format.json_schema.{name}")
        if not isinstance(spec["schema"], dict):
            raise _wrong_type("response_format.json_schema.schema", "an object", spec["schema"])
        if spec.get("strict"):
            check_strict(spec["schema"], spec["name"])


def _check_completion(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    if prompt is not None and not isinstance(prompt, (str, list)):
        raise _wrong_type("prompt", "one of a string or an array", prompt)
    if given(body, "best_of", 20) < given(body, "n", 1):
        raise ApiError(
            400, "You requested that the server return more choices than it will generate (n > best_of).", param="n"
        )
    if body.get("echo") is not None and not isinstance(body["echo"], bool):
        raise _wrong_type("echo", "a boolean", body["echo"])


def _check_embedding(body: dict[str, Any]) -> None:
    if "input" not in body:
        raise _missing("input")
    texts = body["input"]
    if not isinstance(texts, (str, list)):
        raise _wrong_type("input", "one of a string or an array", texts)
    if len(texts) == 0:
        raise ApiError(400, "Invalid 'input': input cannot be an empty string.", param="input")
    if given(body, "encoding_format", "float") not in ("float", "base64"):
        raise _invalid_value("encoding_format", body["encoding_format"], ("float", "base64"))
