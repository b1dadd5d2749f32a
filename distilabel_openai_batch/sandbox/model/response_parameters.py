"""Checks of the parameters of `/v1/responses`, with OpenAI's error messages."""

from __future__ import annotations

from typing import Any

from ..errors import ApiError
from .checks import Bounds, check_number, invalid_value, missing, wrong_type
from .reasoning import EFFORTS, has_fixed_temperature, is_reasoning_model
from .schemas import check_strict

# https://platform.openai.com/docs/api-reference/responses/create
_KNOWN = frozenset(
    """
    access_programs background context_management conversation include input instructions max_output_tokens
    max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options
    temperature text tool_choice tools top_logprobs top_p truncation user
    """.split()  # noqa: SIM905
)
# Parameters of chat completions that have another name here.
_MOVED = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
_NUMBERS = {
    "temperature": Bounds("decimal", 0, 2),
    "top_p": Bounds("decimal", 0, 1),
    "max_output_tokens": Bounds("integer", 16, None),
    "top_logprobs": Bounds("integer", 0, 20),
}
_ROLES = ("assistant", "system", "developer", "user")
_INPUT_PARTS = (
    "input_text",
    "input_image",
    "output_text",
    "refusal",
    "input_file",
    "computer_screenshot",
    "summary_text",
)
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_FORMATS = ("json_object", "json_schema", "text")


def check_response(body: dict[str, Any], model: str) -> None:
    """Check the parameters of a request body.

    Args:
        body: body of the request.
        model: name of the model behind the name in the body.

    Raises:
        ApiError: with OpenAI's status, code and message, if a parameter is missing, unknown or out of bounds.
    """
    for name in body:
        _check_name(name)
    for name in body.keys() & _NUMBERS.keys():
        if body[name] is not None:
            check_number(name, body[name], _NUMBERS[name])
    if body.get("stream"):
        raise ApiError(400, "The sandbox does not stream.", param="stream", code="unsupported_parameter")
    _check_input(body.get("input"))
    _check_model_parameters(body, model)
    _check_tools(body)
    _check_format(body)


def _check_name(name: str) -> None:
    if name in _MOVED:
        message = (
            f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to '{_MOVED[name]}'. "
            "Try again with the new parameter. See the API documentation for more information: "
            "https://platform.openai.com/docs/api-reference/responses/create."
        )
        raise ApiError(400, message, code="unsupported_parameter")
    if name not in _KNOWN:
        raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def _check_input(value: Any) -> None:
    if not value:
        message = "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation' must be provided."
        raise ApiError(400, message, code="missing_required_parameter")
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        raise wrong_type("input", "one of a list of input items or a string", value)
    for index, item in enumerate(value):
        _check_item(f"input[{index}]", item)


def _check_item(param: str, item: Any) -> None:
    if not isinstance(item, dict):
        raise wrong_type(param, "an input item", item)
    kind = item.get("type", "message")
    if kind not in _ITEMS:
        raise invalid_value(param, kind, _ITEMS)
    if kind != "message":
        fields = {"function_call": ("call_id", "name", "arguments"), "function_call_output": ("call_id", "output")}
        for name in fields.get(kind, ()):
            if item.get(name) is None:
                raise missing(f"{param}.{name}")
        return
    if item.get("role") not in _ROLES:
        raise invalid_value(param, item.get("role"), _ROLES)
    unknown = next((name for name in item if name not in ("type", "role", "content", "status", "id", "phase")), None)
    if unknown:
        raise ApiError(
            400, f"Unknown parameter: '{param}.{unknown}'.", param=f"{param}.{unknown}", code="unknown_parameter"
        )
    content = item.get("content")
    if not isinstance(content, str | list):
        raise wrong_type(f"{param}.content", "one of an array of objects or string", content)
    supported = ("output_text", "refusal") if item["role"] == "assistant" else _INPUT_PARTS
    for position, part in enumerate(content if isinstance(content, list) else []):
        kind = part.get("type") if isinstance(part, dict) else part
        if kind not in supported:
            raise invalid_value(f"{param}.content[{position}]", kind, supported)


def _check_model_parameters(body: dict[str, Any], model: str) -> None:
    """Check the parameters whose rules depend on the model: effort, temperature and `top_p`."""
    reasoning = body.get("reasoning")
    if reasoning is not None and not isinstance(reasoning, dict):
        raise wrong_type("reasoning", "an object", reasoning)
    effort = (reasoning or {}).get("effort")
    for name in ("effort", "summary"):
        if (reasoning or {}).get(name) is not None and not is_reasoning_model(model):
            raise _unsupported(f"reasoning.{name}", "unsupported_parameter")
    if effort is not None and effort not in EFFORTS:
        raise invalid_value("reasoning.effort", effort, EFFORTS)
    if has_fixed_temperature(model, effort):
        if body.get("temperature") not in (None, 1):
            raise _unsupported("temperature", None)
        if body.get("top_p") is not None:
            raise _unsupported("top_p", None)


def _unsupported(param: str, code: str | None) -> ApiError:
    return ApiError(400, f"Unsupported parameter: '{param}' is not supported with this model.", param=param, code=code)


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        return
    if not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise wrong_type(f"tools[{index}]", "an object", tool)
        if tool.get("type") == "function" and not isinstance(tool.get("name"), str):
            raise missing(f"tools[{index}].name")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and all(tool.get("name") != choice.get("name") for tool in tools):
        raise ApiError(400, f"Tool choice '{choice.get('name')}' not found in 'tools' parameter.", param="tool_choice")


def _check_format(body: dict[str, Any]) -> None:
    text = body.get("text")
    if text is not None and not isinstance(text, dict):
        raise wrong_type("text", "an object", text)
    format = (text or {}).get("format")
    if format is None:
        return
    if not isinstance(format, dict):
        raise wrong_type("text.format", "an object", format)
    if format.get("type") not in _FORMATS:
        raise invalid_value("text.format.type", format.get("type"), _FORMATS)
    if format["type"] == "json_object" and "json" not in str(body["input"]).lower():
        message = (
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
            "'json_object'."
        )
        raise ApiError(400, message, param="input")
    if format["type"] == "json_schema":
        for name in ("name", "schema"):
            if name not in format:
                raise missing(f"text.format.{name}")
        if not isinstance(format["schema"], dict):
            raise wrong_type("text.format.schema", "an object", format["schema"])
        if format.get("strict"):
            check_strict(format["schema"], format["name"])
