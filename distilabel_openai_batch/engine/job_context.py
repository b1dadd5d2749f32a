"""Surroundings that all work on a session's jobs shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distilabel_openai_batch.api.client import BatchAPI
from distilabel_openai_batch.api.size_limits import AnswerSizes
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import JobSettings
from distilabel_openai_batch.engine.stop_gate import OPEN_GATE, StopGate
from distilabel_openai_batch.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class JobContext:
    """Objects that run, watch and collect the jobs of one session.

    Attributes:
        api: the server.
        ledger: records each step of a job, its progress and its outcomes.
        settings: the settings of jobs.
        directory: the directory of scratch files.
        observer: receives the events of the run.
        sizes: the largest answer that the requests can have.
        gate: closes when the run stops.
    """

    api: BatchAPI
    ledger: Ledger
    settings: JobSettings
    directory: Path
    observer: Observer
    sizes: AnswerSizes
    gate: StopGate = OPEN_GATE
