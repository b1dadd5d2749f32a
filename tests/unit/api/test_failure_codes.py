"""The error codes that the package reports itself."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import failure_codes

CODES = {name: code for name, code in vars(failure_codes).items() if name.isupper()}
TRANSIENT = ("BATCH_FAILED", "MALFORMED_RESULT", "MISSING_RESULT_CODE")


def test_the_codes_are_distinct():
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("name", CODES)
def test_only_lost_results_and_failed_batches_are_transient(name):
    """A retry does not fix the other failures."""
    assert errors.is_transient(None, CODES[name]) is (name in TRANSIENT)
