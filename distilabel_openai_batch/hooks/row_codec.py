"""Write rows as JSON and read the same values again, without code: a reader of foreign bytes runs nothing.

JSON changes some values: a date becomes a text, a tuple a list, a NaN `null`. Such a value is written as a dictionary
with the key `_KIND`, which names the type, and the key `value`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any, cast
from uuid import UUID

import numpy as np
import orjson

from distilabel_openai_batch.text import is_unicode

_KIND = "$distilabel_openai_batch"
_JSON_SCALARS = {str, bool, type(None)}
_MAX_JSON_INTEGER = 2**63


class UnsupportedValueError(ValueError):
    """A value of a type that the codec does not know."""


def survives_json(value: object) -> bool:
    """Return whether JSON keeps a value: not a date, a tuple, a NaN, nor a dictionary with a key that is not a text."""
    kind = type(value)
    if kind is float:
        return math.isfinite(cast("float", value))
    if kind is int:
        return -_MAX_JSON_INTEGER <= cast("int", value) < 2 * _MAX_JSON_INTEGER
    if kind is list:
        return all(map(survives_json, cast("list[object]", value)))
    if kind is dict:
        return all(
            type(key) is str and survives_json(item) for key, item in cast("dict[object, object]", value).items()
        )
    return kind in _JSON_SCALARS


def encode_rows(rows: list[Any]) -> bytes:
    """Write rows, or lists of rows.

    Raises:
        UnsupportedValueError: a row holds a value of an unknown type.
    """
    try:
        return orjson.dumps(_encode(rows))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise UnsupportedValueError(str(error)) from None


def decode_rows(data: bytes) -> Any:
    """Read the rows that `encode_rows` wrote.

    Raises:
        ValueError: the bytes are damaged.
    """
    try:
        return _decode(orjson.loads(data))
    except (KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"The rows are damaged: {error!r}") from None


def _encode(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_encode(item) for item in value]
    if kind is dict:
        if all(type(key) is str for key in value) and _KIND not in value:
            return {key: _encode(item) for key, item in value.items()}
        return _tagged("dict", [[_encode(key), _encode(item)] for key, item in value.items()])
    if kind is str:
        return value if is_unicode(value) else _tagged("str", _text(value.encode("utf-16", "surrogatepass")))
    if survives_json(value):
        return value
    if kind in _ENCODERS:
        return _tagged(kind.__name__, _ENCODERS[kind](value))
    if isinstance(value, np.ndarray | np.generic) and kind.__module__ == "numpy" and value.dtype.kind in "biufcSU":
        array = np.ascontiguousarray(value)
        name = "ndarray" if isinstance(value, np.ndarray) else "generic"
        return _tagged(name, [value.dtype.str, list(np.shape(value)), _text(array.tobytes())])
    raise UnsupportedValueError(f"a value of type {kind.__qualname__}")


def _decode(value: Any) -> Any:
    if type(value) is list:
        return [_decode(item) for item in value]
    if type(value) is not dict:
        return value
    if _KIND not in value:
        return {key: _decode(item) for key, item in value.items()}
    return _DECODERS[value[_KIND]](value["value"])


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {_KIND: kind, "value": value}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _encode_items(values: Any) -> list[Any]:
    return [_encode(item) for item in values]


def _encode_time(value: Any) -> list[Any]:
    offset = None
    if value.tzinfo is not None:
        # Only a fixed offset without a name is read as it was.
        offset = _encode_duration(value.tzinfo.utcoffset(None)) if type(value.tzinfo) is timezone else []
        if not offset or repr(timezone(timedelta(*offset))) != repr(value.tzinfo):
            raise UnsupportedValueError(f"the time zone {value.tzinfo!r}")
    return [value.replace(tzinfo=None).isoformat(), value.fold, offset]


def _decode_time(read: Callable[[str], Any], value: Any) -> Any:
    text, fold, offset = value
    zone = None if offset is None else timezone(timedelta(*offset))
    return read(text).replace(tzinfo=zone, fold=fold)


def _encode_duration(value: Any) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _decode_array(value: Any) -> Any:
    dtype, shape, data = value
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise ValueError("An array of objects is not read.")
    return np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    float: repr,
    int: str,
    tuple: _encode_items,
    set: _encode_items,
    frozenset: _encode_items,
    bytes: _text,
    date: date.isoformat,
    datetime: _encode_time,
    time: _encode_time,
    timedelta: _encode_duration,
    Decimal: str,
    UUID: str,
}

_DECODERS: dict[str, Callable[[Any], Any]] = {
    "dict": lambda pairs: {_decode(key): _decode(item) for key, item in pairs},
    "str": lambda value: base64.b64decode(value).decode("utf-16", "surrogatepass"),
    "float": float,
    "int": int,
    "tuple": lambda items: tuple(map(_decode, items)),
    "set": lambda items: set(map(_decode, items)),
    "frozenset": lambda items: frozenset(map(_decode, items)),
    "bytes": base64.b64decode,
    "date": date.fromisoformat,
    "datetime": partial(_decode_time, datetime.fromisoformat),
    "time": partial(_decode_time, time.fromisoformat),
    "timedelta": lambda value: timedelta(*value),
    "Decimal": Decimal,
    "UUID": UUID,
    "ndarray": _decode_array,
    "generic": lambda value: _decode_array(value)[()],
}
