"""The search for reference cycles is off while many objects are made, and on again afterwards."""

import gc
import threading

from distilabel_openai_batch.gc_pause import gc_paused


def test_the_last_thread_turns_it_on_again():
    """Whoever comes first and goes last."""
    entered, leave = threading.Event(), threading.Event()

    def other():
        with gc_paused():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with gc_paused():
        thread.start()
        entered.wait()
        assert not gc.isenabled()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_who_turned_it_off_finds_it_off():
    """It is not ours to turn on."""
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
