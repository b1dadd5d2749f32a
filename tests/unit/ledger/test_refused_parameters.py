"""The ledger's record of parameters that a server refused for a model."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from distilabel_openai_batch.ledger.ledger import Ledger
from tests.unit.ledger.samples import SCOPE


def test_refusals_are_kept_for_all_scopes_of_a_server(tmp_path):
    """A refusal that is recorded twice is one refusal; another server has its own."""
    with closing(Ledger(tmp_path, SCOPE)) as ledger:
        ledger.refused_parameters.record("alias", "max_tokens")
        ledger.refused_parameters.record("alias", "max_tokens")
    with closing(Ledger(tmp_path, replace(SCOPE, task="other"))) as ledger:
        assert ledger.refused_parameters.load() == [("alias", "max_tokens")]
    with closing(Ledger(tmp_path, replace(SCOPE, base_url="https://other/v1/"))) as ledger:
        assert ledger.refused_parameters.load() == []
