"""Failpoints: the moments at which the death of a process would cost most.

The package calls `reached` at each failpoint, and the function does nothing. Tests replace `reached` with a function
that ends the process, and check that the next process continues correctly.
"""

from __future__ import annotations

from enum import Enum


class Failpoint(Enum):
    """Moment in a job's life."""

    BEFORE_INTENT = "before the intent is written"
    INTENT_TO_UPLOAD = "between the intent and the upload"
    UPLOAD_TO_RECORD = "between the upload and its record"
    UPLOAD_TO_CREATE = "between the upload's record and the creation"
    CREATE_TO_RECORD = "between the creation and its record"
    POLLING = "while the job is polled"
    DOWNLOADING = "in the middle of a download"
    DOWNLOAD_TO_RECORD = "between the download and the record"
    RECORDING = "in the middle of the record"
    ANSWER_TO_RECORD = "between a synchronous answer and its record"
    RECORD_TO_DELIVERY = "between the record and the delivery"


def reached(failpoint: Failpoint) -> None:
    """Do nothing; tests replace this function.

    Args:
        failpoint: the moment that the calling code has reached.
    """
