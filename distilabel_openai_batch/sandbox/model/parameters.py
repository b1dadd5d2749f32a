"""Checks of the parameters in a request body, with OpenAI's error messages."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ApiError
from .checks import Bounds, check_number, describe_type, empty_array, get_parameter, invalid_value, missing, wrong_type
from .reasoning import EFFORTS, has_fixed_temperature, is_reasoning_model, is_responses_only, refuses_tools
from .response_parameters import check_response
from .schemas import check_strict

# From OpenAI's OpenAPI description, 2026 edition. One string per endpoint, since a list would take a line per name.
_KNOWN_PARAMETERS = {
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
    "/v1/moderations": frozenset({"input", "model"}),
    "/v1/images/generations": frozenset(
        """
        prompt background complexity frame_count frame_duration_ms model moderation n output_compression output_format
        partial_images quality safety_identifier size stream svg user
        """.split()  # noqa: SIM905
    ),
}
ENDPOINTS = frozenset({*_KNOWN_PARAMETERS, "/v1/responses"})


_CHAT_NUMBERS = {
    "n": Bounds("integer", 1, 128),
    "temperature": Bounds("decimal", 0, 2),
    "top_p": Bounds("decimal", 0, 1),
    "frequency_penalty": Bounds("decimal", -2, 2),
    "presence_penalty": Bounds("decimal", -2, 2),
    "max_tokens": Bounds("integer", 1, None),
    "max_completion_tokens": Bounds("integer", 1, None),
    "top_logprobs": Bounds("integer", 0, 20),
}
# Bounds from https://platform.openai.com/docs/api-reference.
_NUMBERS = {
    "/v1/chat/completions": _CHAT_NUMBERS,
    "/v1/completions": _CHAT_NUMBERS
    | {
        "best_of": Bounds("integer", 0, 20),
        "max_tokens": Bounds("integer", 0, None),
        "logprobs": Bounds("integer", 0, 5),
    },
    "/v1/embeddings": {"dimensions": Bounds("integer", 1, 3_072)},
    "/v1/moderations": {},
    "/v1/images/generations": {"n": Bounds("integer", 1, 10), "output_compression": Bounds("integer", 0, 100)},
}
_ROLES = ("system", "assistant", "user", "function", "tool", "developer")
_PART_TYPES = ("text", "image_url", "input_audio", "file", "refusal")
# https://platform.openai.com/docs/api-reference/images/create
_QUALITIES = ("low", "medium", "high", "xhigh", "max", "auto")
# Models that take no sampling parameters at all, https://platform.openai.com/docs/guides/reasoning.
_NO_SAMPLING_MODEL = re.compile(r"o3-mini|o4-mini")
# Models without `reasoning_effort`.
_OLD_MODEL = re.compile(r"gpt-(3|4|35)")


def check_parameters(endpoint: str, body: dict[str, Any], model: str) -> None:
    """Check the parameters of a request body.

    Args:
        endpoint: one of `ENDPOINTS`.
        body: body of the request.
        model: name of the model behind the name in the body.

    Raises:
        ApiError: with OpenAI's status, code and message, if a parameter is missing, unknown or out of bounds.
    """
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise ApiError(400, "you must provide a model parameter")
    if endpoint == "/v1/responses":
        check_response(body, model)
        return
    if not body.keys() <= _KNOWN_PARAMETERS[endpoint]:
        unknown = [name for name in body if name not in _KNOWN_PARAMETERS[endpoint]]
        if endpoint == "/v1/images/generations":
            raise ApiError(400, f"Unknown parameter: '{unknown[0]}'.", param=unknown[0], code="unknown_parameter")
        plural = "s" if len(unknown) > 1 else ""
        raise ApiError(400, f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
    numbers = _NUMBERS[endpoint]
    for name in body.keys() & numbers.keys():
        if body[name] is not None:
            check_number(name, body[name], numbers[name])
    if body.get("stream"):
        raise ApiError(400, "The sandbox does not stream.", param="stream", code="unsupported_parameter")
    _check_stop(body.get("stop"))
    if endpoint == "/v1/chat/completions":
        _check_chat(body, model)
    elif endpoint == "/v1/completions":
        _check_completion(body)
    elif endpoint == "/v1/images/generations":
        _check_image(body)
    else:
        _check_embedding(body)


def _check_stop(stop: Any) -> None:
    if stop is None or isinstance(stop, str):
        return
    if not isinstance(stop, list) or not all(isinstance(sequence, str) for sequence in stop):
        raise wrong_type("stop", "one of an array of strings or a string", stop)
    if len(stop) > 4:
        message = (
            "Invalid 'stop': array too long. Expected an array with maximum length 4, "
            f"but got an array with length {len(stop)} instead."
        )
        raise ApiError(400, message, param="stop", code="array_above_max_length")


def _check_chat(body: dict[str, Any], model: str) -> None:
    if is_responses_only(model):
        raise ApiError(404, "This model is only supported in v1/responses and not in v1/chat/completions.")
    check_messages(body)
    if body.get("logprobs") is not None and not isinstance(body["logprobs"], bool):
        raise wrong_type("logprobs", "a boolean", body["logprobs"])
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError(400, message, param="top_logprobs")
    _check_limits(body, model)
    _check_effort(body, model)
    _check_tools(body, model)
    if body.get("response_format") is not None:
        _check_response_format(body)


def are_checked_apart(parameters: dict[str, Any]) -> bool:
    """Return `True` if the messages of a chat have no influence on the check of the other parameters.

    If a chat passes `check_parameters`, then each chat with the same parameters and with messages that pass
    `check_messages` passes too.

    Args:
        parameters: parameters of the chat, but for its messages.
    """
    response_format = parameters.get("response_format")
    return not (isinstance(response_format, dict) and response_format.get("type") == "json_object")


def check_messages(body: dict[str, Any]) -> None:
    """Check the messages of a chat.

    Raises:
        ApiError: if the messages are missing or malformed.
    """
    if "messages" not in body:
        raise missing("messages")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise empty_array("messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise wrong_type(f"messages[{index}]", "an object", message)
        if "role" not in message:
            raise missing(f"messages[{index}].role")
        if message["role"] not in _ROLES:
            raise invalid_value(f"messages[{index}].role", message["role"], _ROLES)
        _check_content(message, index)


def _check_content(message: dict[str, Any], index: int) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if isinstance(content, list):
        for position, part in enumerate(content):
            part_type = part.get("type") if isinstance(part, dict) else part
            if part_type not in _PART_TYPES:
                raise invalid_value(f"messages[{index}].content[{position}].type", part_type, _PART_TYPES)
    elif content is not None or message["role"] != "assistant":
        expected = "Invalid value for 'content': expected a string, got " + describe_type(content).split()[-1]
        raise ApiError(400, f"{expected}.", param=f"messages.[{index}].content")


def _check_limits(body: dict[str, Any], model: str) -> None:
    """Check the parameters whose rules depend on the model's family."""
    if body.get("max_tokens") is not None:
        if is_reasoning_model(model):
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                + "Use 'max_completion_tokens' instead."
            )
            raise ApiError(400, message, param="max_tokens", code="unsupported_parameter")
        if body.get("max_completion_tokens") is not None:
            message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
            raise ApiError(400, message, code="invalid_parameter_combination")
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if body.get(name) is not None and _NO_SAMPLING_MODEL.match(model):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise ApiError(400, message, param=name, code="unsupported_parameter")
    temperature = get_parameter(body, "temperature", 1)
    if temperature != 1 and has_fixed_temperature(model, body.get("reasoning_effort")):
        message = (
            f"Unsupported value: 'temperature' does not support {temperature} with this model. "
            "Only the default (1) value is supported."
        )
        raise ApiError(400, message, param="temperature", code="unsupported_value")


def _check_effort(body: dict[str, Any], model: str) -> None:
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if _OLD_MODEL.match(model):
        raise ApiError(400, "Unrecognized request argument supplied: reasoning_effort")
    if effort not in EFFORTS:
        raise invalid_value("reasoning_effort", effort, EFFORTS)


def _check_tools(body: dict[str, Any], model: str) -> None:
    tools = body.get("tools")
    choice = body.get("tool_choice")
    if tools is None:
        if choice is not None:
            message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
            raise ApiError(400, message, param="tool_choice")
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    if refuses_tools(model, body.get("reasoning_effort")):
        message = (
            f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'."
        )
        raise ApiError(400, message, param="reasoning_effort")
    if not tools:
        raise empty_array("tools")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise missing(
                f"tools[{index}].function" if not isinstance(function, dict) else f"tools[{index}].function.name"
            )
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise invalid_value("tool_choice", choice, ("none", "auto", "required"))
    if isinstance(choice, dict):
        name = get_parameter(choice, "function", {}).get("name")
        if all(tool["function"]["name"] != name for tool in tools):
            raise ApiError(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")


def _check_response_format(body: dict[str, Any]) -> None:
    response_format = body["response_format"]
    if not isinstance(response_format, dict):
        raise wrong_type("response_format", "an object", response_format)
    format_type = response_format.get("type")
    if format_type not in ("text", "json_object", "json_schema"):
        raise invalid_value("response_format.type", format_type, ("json_object", "json_schema", "text"))
    if format_type == "json_object" and "json" not in str(body["messages"]).lower():
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise ApiError(400, message, param="messages")
    if format_type == "json_schema":
        _check_json_schema(response_format.get("json_schema"))


def _check_json_schema(spec: Any) -> None:
    if not isinstance(spec, dict):
        raise missing("response_format.json_schema")
    for name in ("name", "schema"):
        if name not in spec:
            raise missing(f"response_format.json_schema.{name}")
    if not isinstance(spec["schema"], dict):
        raise wrong_type("response_format.json_schema.schema", "an object", spec["schema"])
    if spec.get("strict"):
        check_strict(spec["schema"], spec["name"])


def _check_completion(body: dict[str, Any]) -> None:
    prompt = body.get("prompt")
    if prompt is not None and not isinstance(prompt, (str, list)):
        raise wrong_type("prompt", "one of a string or an array", prompt)
    if get_parameter(body, "best_of", 20) < get_parameter(body, "n", 1):
        raise ApiError(
            400, "You requested that the server return more choices than it will generate (n > best_of).", param="n"
        )
    if body.get("echo") is not None and not isinstance(body["echo"], bool):
        raise wrong_type("echo", "a boolean", body["echo"])


def _check_image(body: dict[str, Any]) -> None:
    if "prompt" not in body:
        raise missing("prompt")
    if not isinstance(body["prompt"], str):
        raise wrong_type("prompt", "a string", body["prompt"])
    if get_parameter(body, "quality", "auto") not in _QUALITIES:
        raise invalid_value("quality", body["quality"], _QUALITIES)


def _check_embedding(body: dict[str, Any]) -> None:
    if "input" not in body:
        raise missing("input")
    inputs = body["input"]
    if not isinstance(inputs, (str, list)):
        raise wrong_type("input", "one of a string or an array", inputs)
    if len(inputs) == 0:
        raise ApiError(400, "Invalid 'input': input cannot be an empty string.", param="input")
    if get_parameter(body, "encoding_format", "float") not in ("float", "base64"):
        raise invalid_value("encoding_format", body["encoding_format"], ("float", "base64"))
