"""When to look at a job again.

A look costs a request; not looking costs waiting. Looking after each further twentieth of the job's age means that its
end is noticed late by a twentieth of the time that it took, or by the longest interval, whichever is less.
"""

from __future__ import annotations

from dataclasses import dataclass

_SHARE_OF_AGE = 0.05


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """Intervals that grow with the age of the job.

    Attributes:
        shortest: seconds, at least, between two looks at a job.
        longest: seconds, at most, between two looks at a job. With 65 a job of 24 hours costs 1,415 looks.
    """

    shortest: float = 1.0
    longest: float = 65.0

    def interval(self, age: float) -> float:
        """Seconds to wait before the next look.

        Args:
            age: seconds since the job was created; a negative one, of clocks that disagree, counts as 0.

        Returns:
            A twentieth of the age, within `shortest` and `longest`; `shortest` counts where the two contradict.
        """
        return max(self.shortest, min(self.longest, age * _SHARE_OF_AGE))
