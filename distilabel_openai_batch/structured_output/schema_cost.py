"""Cost of a JSON schema, measured before an answer is checked: the schema of a row may be made to hang the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

LARGEST_SIZE = 10_000
"""Parts of a schema with its references followed. OpenAI's own limit is 5,000 properties:
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas"""

# Keywords that may take time out of proportion to the answer: Python's regular expressions take exponential time for
# some patterns, and the answer decides where a dynamic reference leads.
_SLOW_KEYWORDS = frozenset({"pattern", "patternProperties", "$dynamicRef", "$recursiveRef"})


@dataclass(slots=True)
class SchemaCost:
    """Cost of a JSON schema.

    Args:
        schema: the JSON schema.

    Attributes:
        size: number of the schema's parts once each reference is replaced by its target. A reference inside its own
            target counts as one part.
        may_be_slow: whether the check of an answer may take time out of proportion to the answer's length.
    """

    schema: dict[str, Any]
    size: int = field(init=False)
    may_be_slow: bool = field(init=False, default=False)
    _sizes: dict[str, int] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.size = self._measure(self.schema, ())

    def _measure(self, part: object, path: tuple[str, ...]) -> int:
        """Return the size of a part; note slow keywords and circles.

        Args:
            part: a schema, or any JSON value inside a schema.
            path: the references that led to the part.
        """
        size, remaining = 0, [part]
        while remaining:
            value = remaining.pop()
            if isinstance(value, list):
                remaining += value
            elif isinstance(value, dict):
                size += 1
                self.may_be_slow = self.may_be_slow or not _SLOW_KEYWORDS.isdisjoint(value)
                remaining += value.values()
                if isinstance(reference := value.get("$ref"), str):
                    size += self._measure_target(reference, path)
        return size

    def _measure_target(self, reference: str, path: tuple[str, ...]) -> int:
        target = _resolve(self.schema, reference)
        if reference in path or target is None:
            # The answer decides how often a circle is followed, and other kinds of references may form circles.
            self.may_be_slow = True
            return 1
        if reference not in self._sizes:
            self._sizes[reference] = self._measure(target, (*path, reference))
        return self._sizes[reference]


def _resolve(schema: dict[str, Any], reference: str) -> Any:
    """Return the part that a JSON pointer such as `#/$defs/Item` names; `None` for other references."""
    if not reference.startswith("#"):
        return None
    part: Any = schema
    for name in unquote(reference[1:]).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isascii() and name.isdigit() and int(name) < len(part):
            part = part[int(name)]
        else:
            return None
    return part if reference == "#" or reference.startswith("#/") else None
