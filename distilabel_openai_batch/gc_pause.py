"""Pauses of Python's cyclic garbage collector."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_lock = threading.Lock()
_pauses = 0
_was_enabled = False


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the cyclic garbage collector inside the `with` block.

    Use the pause where code creates many objects without reference cycles: the collector would start after every few
    hundred objects, and sometimes scan the whole process, which took a quarter of the time. If several threads are
    inside, the first disables the collector and the last enables it again.
    """
    global _pauses, _was_enabled
    with _lock:
        if not _pauses:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _was_enabled:
                _age_objects()
                gc.enable()


def _age_objects() -> None:
    """Move all objects into the oldest generation, so that the collector does not visit the new objects at once."""
    if not _has_frozen_objects():
        gc.freeze()
        gc.unfreeze()


@cache
def _has_frozen_objects() -> bool:
    """Return whether the user froze objects before the first pause: `gc.unfreeze` would release them.

    Python counts the objects one by one, so the answer is remembered.
    """
    return gc.get_freeze_count() > 0
