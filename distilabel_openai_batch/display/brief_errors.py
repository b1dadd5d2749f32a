"""Print an error of this package as its message alone, where distilabel prints a traceback with all local variables.

distilabel installs rich's tracebacks, which show a wrong key as hundreds of lines, and the arguments of a constructor
with the API key. A message of this package names the cause and the fix.
"""

from __future__ import annotations

import functools
import os
import sys
from types import TracebackType
from typing import Any, TypeVar

from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.text import printable

E = TypeVar("E", bound=BaseException)

TRACEBACK_ENV_NAME = "DISTILABEL_OPENAI_BATCH_TRACEBACK"
"""Environment variable that shows tracebacks with `1`."""

_MARK = "_openai_batch_is_brief"


def mark_brief(error: E) -> E:
    """Mark an exception of another package as an error whose message is enough, and return the exception."""
    setattr(error, _MARK, True)
    return error


def is_brief(error: BaseException) -> bool:
    """Return whether an uncaught exception is printed as its message alone."""
    is_ours = isinstance(error, OpenAIBatchError) or getattr(error, _MARK, False)
    return bool(is_ours) and os.environ.get(TRACEBACK_ENV_NAME, "0") in ("", "0")


def brief_text(error: BaseException) -> str:
    """Return the type and the message of an exception, and the way to see the traceback of an `OpenAIBatchError`."""
    text = printable(f"{type(error).__name__}: {error}")
    return f"{text}\n({TRACEBACK_ENV_NAME}=1 shows the traceback.)" if isinstance(error, OpenAIBatchError) else text


@functools.cache
def install_brief_errors() -> None:
    """Print brief errors in scripts, in `distilabel pipeline run`, and in IPython; leave other errors as they are."""
    sys.excepthook = functools.partial(_print_uncaught, sys.excepthook)
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    if shell is not None:
        # rich replaces the same attribute of the shell.
        shell.showtraceback = functools.partial(_show_in_shell, shell, shell.showtraceback)


def _print_uncaught(
    original: Any, error_type: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if is_brief(error):
        print(brief_text(error), file=sys.stderr)
    else:
        original(error_type, error, traceback)


def _show_in_shell(shell: Any, original: Any, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
    error = (exc_tuple or sys.exc_info())[1]
    if error is not None and is_brief(error):
        # The method of the class: rich replaced the attribute of the object.
        type(shell)._showtraceback(shell, type(error), error, brief_text(error).split("\n"))
    else:
        original(exc_tuple, *args, **kwargs)
