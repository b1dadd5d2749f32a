"""Checks of values that several endpoints share, with OpenAI's error messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ApiError


@dataclass(frozen=True)
class Bounds:
    """Type and range of a numeric parameter.

    Attributes:
        type_name: OpenAI's name of the type, `integer` or `decimal`.
        minimum: smallest value.
        maximum: largest value; `None` for no limit.
    """

    type_name: str
    minimum: float
    maximum: float | None


def get_parameter(body: dict[str, Any], name: str, default: Any) -> Any:
    """Return a parameter, or the default if the parameter is missing or null: OpenAI treats both alike."""
    value = body.get(name)
    return default if value is None else value


def describe_type(value: Any) -> str:
    """Return OpenAI's name for the type of a JSON value."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return names.get(type(value), "an object")


def wrong_type(param: str, expected: str, value: Any) -> ApiError:
    """Return the error of a value that has another type than the parameter."""
    message = f"Invalid type for '{param}': expected {expected}, but got {describe_type(value)} instead."
    return ApiError(400, message, param=param, code="invalid_type")


def missing(param: str) -> ApiError:
    """Return the error of a missing parameter."""
    return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def empty_array(param: str) -> ApiError:
    """Return the error of an array that may not be empty."""
    message = (
        f"Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    )
    return ApiError(400, message, param=param, code="empty_array")


def check_number(name: str, value: Any, bounds: Bounds) -> None:
    """Check the type and the range of a numeric parameter.

    Raises:
        ApiError: if the value is no such number.
    """
    type_name = bounds.type_name
    if isinstance(value, bool) or not isinstance(value, int if type_name == "integer" else (int, float)):
        raise wrong_type(name, f"{'an' if type_name == 'integer' else 'a'} {type_name}", value)
    if value < bounds.minimum:
        relation, code, sign, bound = "below minimum", "below_min", ">=", bounds.minimum
    elif bounds.maximum is not None and value > bounds.maximum:
        relation, code, sign, bound = "above maximum", "above_max", "<=", bounds.maximum
    else:
        return
    message = (
        f"Invalid '{name}': {type_name} {relation} value. Expected a value {sign} {bound}, but got {value} instead."
    )
    raise ApiError(400, message, param=name, code=f"{type_name}_{code}_value")


def invalid_value(param: str, value: Any, supported: tuple[str, ...]) -> ApiError:
    """Return the error of a value that is none of the supported values."""
    comma = "," if len(supported) > 2 else ""
    listed = ", ".join(f"'{name}'" for name in supported[:-1]) + f"{comma} and '{supported[-1]}'"
    return ApiError(
        400, f"Invalid value: '{value}'. Supported values are: {listed}.", param=param, code="invalid_value"
    )
