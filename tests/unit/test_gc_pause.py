"""The pause of the cyclic garbage collector."""

import gc
import threading

import pytest

from distilabel_openai_batch import gc_pause
from distilabel_openai_batch.gc_pause import gc_paused


def test_the_last_of_several_threads_enables_the_collector_again():
    entered, leave = threading.Event(), threading.Event()

    def pause():
        with gc_paused():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=pause)
    with gc_paused():
        thread.start()
        entered.wait()
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_collector_that_was_disabled_before_stays_disabled():
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("has_frozen_objects", [False, True])
def test_objects_of_a_pause_are_old_unless_the_user_froze_objects(monkeypatch, has_frozen_objects):
    monkeypatch.setattr(gc_pause, "_has_frozen_objects", lambda: has_frozen_objects)
    frozen = gc.get_freeze_count()
    try:
        with gc_paused():
            created = [[] for _ in range(100)]
        oldest = {id(found) for found in gc.get_objects(generation=2)}
        assert all(id(each) in oldest for each in created) is not has_frozen_objects
        assert gc.get_freeze_count() == (frozen if has_frozen_objects else 0)
    finally:
        gc.freeze()
