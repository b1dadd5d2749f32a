"""How a stopped pipeline winds up."""

import multiprocessing
import threading
from logging.handlers import QueueListener

from distilabel.utils import logging

from distilabel_openai_batch.hooks import stopping


def test_a_log_whose_lock_died_with_a_step_does_not_hold_the_end_up(monkeypatch):
    """The killed step was writing to the log's queue: nobody gets through it any more."""
    queue = multiprocessing.Queue()
    queue._wlock.acquire()
    listener = QueueListener(queue)
    listener.start()
    monkeypatch.setattr(logging, "queue_listener", listener)
    monkeypatch.setattr(stopping, "_LOG_SECONDS", 0.1)

    ending = threading.Thread(target=stopping._stop_logging, daemon=True)
    ending.start()
    ending.join(timeout=30)

    assert not ending.is_alive()
    assert logging.queue_listener is None
    queue._wlock.release()
