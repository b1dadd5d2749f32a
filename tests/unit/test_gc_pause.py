"""The pause of the cyclic garbage collector."""

import gc
import threading

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
