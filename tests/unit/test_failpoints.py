"""The failpoints and their places in the package."""

from __future__ import annotations

from pathlib import Path

import pytest

import distilabel_openai_batch
from distilabel_openai_batch import failpoints
from distilabel_openai_batch.failpoints import Failpoint


@pytest.mark.parametrize("failpoint", Failpoint, ids=lambda failpoint: failpoint.name)
def test_each_failpoint_is_reached_somewhere_in_the_package(failpoint):
    """A failpoint without a place would let the tests of killed processes pass without a kill."""
    package = Path(distilabel_openai_batch.__file__).parent
    call = f"failpoints.reached(Failpoint.{failpoint.name})"
    assert any(call in path.read_text(encoding="utf-8") for path in package.rglob("*.py"))


def test_reaching_a_failpoint_does_nothing():
    assert failpoints.reached(Failpoint.POLLING) is None
