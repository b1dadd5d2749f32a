"""Executions of code at the top level: cells of a notebook, statements at a prompt, or a whole script."""

from __future__ import annotations

import inspect
import sys
import threading
from types import FrameType

from distilabel import envs


def current_execution() -> object:
    """Return an object that stands for the execution of the code at the top level.

    Within an execution each call returns the identical object, and for another execution another object. A script is
    one execution, each run of a notebook's cell is one, and so is each statement at Python's prompt.

    Returns:
        `None` in a pipeline, or if no execution is found: the code runs on behalf of the latest execution.
    """
    if envs.DISTILABEL_PIPELINE_NAME:
        return None
    if (cell := _cell_number()) is not None:
        # Interned → the same number gives the identical object as long as an object refers to the text.
        return sys.intern(f"cell {cell}")
    # In a notebook or a thread of its own, the call runs on behalf of the main thread, which waits.
    main_thread = sys._current_frames().get(threading.main_thread().ident or 0)
    return _top_level_code(sys._getframe()) or _top_level_code(main_thread)


def _cell_number() -> int | None:
    """Return the number of IPython's current cell; `None` outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    return None if shell is None else int(shell.execution_count)


def _top_level_code(frame: FrameType | None) -> object:
    """Return the code of the innermost frame at the top level of the main module; `None` without such a frame."""
    names = vars(sys.modules["__main__"])
    while frame:
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        # A class body at the top level has the same global names, and the name of its class. The locals tell nothing:
        # Python 3.12 shows others while a comprehension runs.
        is_class = frame.f_code.co_name.isidentifier()
        if not is_function and not is_class and frame.f_globals is names:
            return frame.f_code
        frame = frame.f_back
    return None
