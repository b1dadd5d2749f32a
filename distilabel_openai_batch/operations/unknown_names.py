"""Finds names in a pipeline's file, and among its runtime parameters, that nobody knows.

distilabel drops what it does not know without a word, a misspelt `budget` too. In Python it is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distilabel.mixins.runtime_parameters import RuntimeParametersMixin
from distilabel.utils.serialization import _get_module_attr

from distilabel_openai_batch.text import did_you_mean

# What distilabel writes into a file beside the fields.
_OF_DISTILABEL = frozenset({"type_info", "runtime_parameters_info"})


def in_steps(steps: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each name in a file that is no field where it stands.

    Args:
        steps: as a pipeline's file has them.
    """
    for step in steps:
        yield from _in_fields(step["step"], str(step["name"]))


def _in_fields(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from _in_fields(item, f"{where}.{number}")
    if not isinstance(value, dict):
        return
    known: Mapping[str, Any] = value
    if (type_info := value.get("type_info")) and "module" in type_info:
        cls = _get_module_attr(type_info["module"], type_info["name"])
        fields = getattr(cls, "model_fields", None)
        if fields and cls.model_config.get("extra") != "allow":
            known = fields
            aliases = {field.alias for field in fields.values()}
            for name in value:
                if name not in known.keys() | aliases | _OF_DISTILABEL:
                    yield f"{where}: {cls.__name__} has no field `{name}`{did_you_mean(name, known)}"
    for name, inner in value.items():
        if name in known and name not in _OF_DISTILABEL:
            yield from _in_fields(inner, f"{where}.{name}")


def in_parameters(steps: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each runtime parameter that is none.

    Args:
        steps: a pipeline's, by their names.
        parameters: as `Pipeline.run` takes them.
    """
    for name, given in parameters.items():
        if name not in steps:
            yield f"There is no step `{name}`{did_you_mean(name, steps)}"
        else:
            yield from _in_given(steps[name], given, name)


def _in_given(owner: Any, given: Any, where: str) -> Iterator[str]:
    known = owner.runtime_parameters_names
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name not in known:
            yield f"{where}: {type(owner).__name__} has no runtime parameter `{name}`{did_you_mean(name, known)}"
        elif isinstance(inner := getattr(owner, name, None), RuntimeParametersMixin):
            yield from _in_given(inner, value, f"{where}.{name}")
