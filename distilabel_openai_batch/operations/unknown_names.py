"""Find misspelt names in a pipeline's file and among its runtime parameters.

distilabel ignores an unknown name in a file silently, a misspelt `budget` included; in Python the name is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distilabel.mixins.runtime_parameters import RuntimeParametersMixin
from distilabel.utils.serialization import _get_module_attr

from distilabel_openai_batch.text import did_you_mean

_DISTILABEL_KEYS = frozenset({"type_info", "runtime_parameters_info"})
"""Keys that distilabel writes into a file beside the fields."""


def unknown_fields(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each name in a pipeline's file that is no field of its object.

    Args:
        steps: steps in the format of a pipeline's file, each with `name` and `step`.
    """
    for step in steps:
        yield from _unknown_in_value(step["step"], str(step["name"]))


def _unknown_in_value(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unknown_in_value(item, f"{path}.{number}")
    if not isinstance(value, dict):
        return
    fields: Mapping[str, Any] = value
    if (type_info := value.get("type_info")) and "module" in type_info:
        cls = _get_module_attr(type_info["module"], type_info["name"])
        model_fields = getattr(cls, "model_fields", None)
        if model_fields and cls.model_config.get("extra") != "allow":
            fields = model_fields
            aliases = {field.alias for field in fields.values()}
            for name in value:
                if name not in fields.keys() | aliases | _DISTILABEL_KEYS:
                    yield f"{path}: {cls.__name__} has no field `{name}`{did_you_mean(name, fields)}"
    for name, inner in value.items():
        if name in fields and name not in _DISTILABEL_KEYS:
            yield from _unknown_in_value(inner, f"{path}.{name}")


def unknown_parameters(steps: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each name that is no step or no runtime parameter.

    Args:
        steps: steps of the pipeline by name.
        parameters: runtime parameters, as `Pipeline.run` takes them.
    """
    for name, values in parameters.items():
        if name not in steps:
            yield f"There is no step `{name}`{did_you_mean(name, steps)}"
        else:
            yield from _unknown_in_parameters(steps[name], values, name)


def _unknown_in_parameters(owner: Any, values: Any, path: str) -> Iterator[str]:
    names = owner.runtime_parameters_names
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if name not in names:
            yield f"{path}: {type(owner).__name__} has no runtime parameter `{name}`{did_you_mean(name, names)}"
        elif isinstance(inner := getattr(owner, name, None), RuntimeParametersMixin):
            yield from _unknown_in_parameters(inner, value, f"{path}.{name}")
