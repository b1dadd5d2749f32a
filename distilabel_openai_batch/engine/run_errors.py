"""Conversion of unexpected exceptions at the methods by which the engine is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from distilabel_openai_batch.errors import RunError, as_run_error

P = ParamSpec("P")
T = TypeVar("T")


def raises_run_errors(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return an asynchronous function whose every `Exception` is a `RunError`, see `errors.as_run_error`."""

    @wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except RunError:
            raise
        except Exception as error:
            raise as_run_error(error) from error

    return wrapped
