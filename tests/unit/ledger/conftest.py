"""Fixtures of the tests of the ledger."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.ledger.ledger import Ledger
from tests.unit.ledger.samples import SCOPE


@pytest.fixture
def ledger(tmp_path):
    """An empty ledger for `SCOPE`, in the directory `ledger`."""
    ledger = Ledger(tmp_path / "ledger", SCOPE)
    yield ledger
    ledger.close()


@pytest.fixture
def open_ledger(tmp_path):
    """Opens further sessions on the ledger in the directory `ledger`; closes each session at the end."""
    opened: list[Ledger] = []

    def open_for(scope=SCOPE) -> Ledger:
        opened.append(Ledger(tmp_path / "ledger", scope))
        return opened[-1]

    yield open_for
    for ledger in opened:
        ledger.close()
