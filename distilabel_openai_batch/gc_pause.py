"""When Python looks for garbage that reference counts do not free."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_was_enabled = False


@contextmanager
def gc_paused() -> Iterator[None]:
    """Puts the search for reference cycles off while many objects are made, and none of them in a cycle.

    It would begin anew after each few hundred of them, and now and then look at all that the process holds: a quarter
    of the time. Of several threads that are inside, the first turns it off and the last turns it on again.
    """
    global _inside, _was_enabled
    with _lock:
        if not _inside:
            _was_enabled = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _was_enabled:
                gc.enable()
