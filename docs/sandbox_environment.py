"""Environment of the commands whose output the documentation shows, for `recording.py` and `screenshots.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from distilabel_openai_batch.sandbox import Sandbox, Settings


@contextmanager
def sandbox_environment(settings: Settings, **variables: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield a new home directory, and an environment in which commands use it, its ledger and a new sandbox.

    Args:
        settings: Settings of the sandbox.
        variables: Further variables of the environment.
    """
    with Sandbox(settings) as sandbox, TemporaryDirectory() as home:
        yield (
            Path(home),
            os.environ
            | {
                "OPENAI_BASE_URL": sandbox.base_url,
                "OPENAI_API_KEY": "the-sandbox-takes-any-key",
                "HOME": home,
                "DISTILABEL_OPENAI_BATCH_DIR": str(Path(home) / "ledger"),
            }
            | variables,
        )
