"""Durations of a model's past jobs: the only estimate of a job's end before the server answers its first request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

# Fewer jobs say little: the durations of a batch range from a minute to a day.
_FEWEST = 3

SELECT_DURATIONS = """
    SELECT max(0.0, iif(finished_at BETWEEN intended_at AND ended_at, finished_at, ended_at) - intended_at)
    FROM jobs JOIN scopes ON scopes.id = jobs.scope
    WHERE base_url = ? AND model = ? AND batch_id IS NOT NULL AND status = 'completed' AND ended_at IS NOT NULL
    ORDER BY jobs.id DESC LIMIT 20
"""
"""Statement that selects the seconds from the plan to the end of the last 20 completed jobs of a server and a model.

The end is that of `JobEntry.end_at`: a run that did not wait sees the end late, so the server's time counts.
"""


@dataclass(frozen=True, slots=True)
class PastJobs:
    """Durations of the last completed jobs of a server's model.

    Attributes:
        model: the model that the requests name.
        jobs: number of the jobs, at least 3 and at most 20.
        median_seconds: seconds that half of the jobs took at most, from the plan to the end.
    """

    model: str
    jobs: int
    median_seconds: float

    @classmethod
    def of(cls, model: str, seconds: Sequence[float]) -> PastJobs | None:
        """Return the past jobs of a model; `None` if there are too few.

        Args:
            model: name of the model.
            seconds: the durations of its jobs.
        """
        return cls(model, len(seconds), median(seconds)) if len(seconds) >= _FEWEST else None
