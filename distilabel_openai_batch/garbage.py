"""When Python looks for garbage that reference counts do not free."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Puts the search for reference cycles off while many objects are made, and none of them in a cycle.

    It would begin anew after each few hundred of them, and now and then look at all that the process holds: a quarter
    of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
