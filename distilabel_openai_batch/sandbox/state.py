"""State that the stores, the worker and the organization share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from .fault_schedule import FaultSchedule
from .model.prompt_cache import PromptCache
from .settings import Settings


class SandboxState:
    """Shared state of one organization.

    Attributes:
        settings: current settings; `Organization.configure` replaces them.
        clock: function that returns the time, in seconds since the epoch.
        directory: directory of all file contents.
        schedule: faults and failures still to happen.
        prompt_cache: prompts that were answered before.
        lock: lock of every stored file and batch.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float], directory: Path) -> None:
        self.settings = settings
        self.clock = clock
        self.directory = directory
        self.schedule = FaultSchedule(settings.failures)
        self.prompt_cache = PromptCache()
        self.lock = threading.RLock()
