"""The moments at which a process may die with the most at stake, by name.

They are called where they are passed, and do nothing: tests put a function in the place of `reached` that ends the
process, and look what the next one makes of it.
"""

from __future__ import annotations

from enum import Enum


class Failpoint(Enum):
    """A moment in a job's life."""

    BEFORE_INTENT = "before the intent is written"
    INTENT_TO_UPLOAD = "between the intent and the upload"
    UPLOAD_TO_RECORD = "between the upload and its record"
    UPLOAD_TO_CREATE = "between the upload's record and the creation"
    CREATE_TO_RECORD = "between the creation and its record"
    POLLING = "while the job is watched"
    DOWNLOADING = "half-way through a download"
    DOWNLOAD_TO_RECORD = "between the download and the record"
    RECORDING = "half-way through the record"
    ANSWER_TO_RECORD = "between a synchronous answer and its record"
    RECORD_TO_DELIVERY = "between the record and the hand-over"


def reached(failpoint: Failpoint) -> None:
    """Does nothing.

    Args:
        failpoint: the moment that has come.
    """
