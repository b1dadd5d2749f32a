"""Deadlines as users write them: seconds, durations (`1h30m`), times of the day (`06:00`) and ISO 8601 date-times."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from datetime import time as time_of_day

from distilabel_openai_batch.text import duration

_NEVER = float("inf")

# Order of the groups: days, hours, minutes, seconds.
_DURATION = re.compile(
    r"(?:([\d.]+) ?d(?:ays?)?)? ?(?:([\d.]+) ?h(?:(?:ou)?rs?)?)?"
    r" ?(?:([\d.]+) ?m(?:in(?:ute)?s?)?)? ?(?:([\d.]+) ?s(?:ec(?:ond)?s?)?)?",
    re.IGNORECASE,
)
_UNIT_SECONDS = (86_400, 3_600, 60, 1)
_CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?) ?(?:([Zz])|([+-]\d\d):?(\d\d)?)?")

# A day without the time, such as 02:30 when summer time begins, is followed by a day that has the time.
_DAYS_SEARCHED = 3


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which no batch is waited for.

    Attributes:
        seconds: seconds after the planning of the requests; infinity for no such limit.
        at: fixed moment, in seconds since the epoch; infinity for none.
        clock: time of the local clock that `begin` turns into `at`; `None` for none.
    """

    seconds: float = _NEVER
    at: float = _NEVER
    clock: time_of_day | None = None

    def begin(self, now: float | None = None) -> Deadline:
        """Return the deadline of a run that begins now: a time of the day becomes the next such moment.

        A later round of the run keeps the moment, so a round that begins at 06:01 is late, and not a day early.

        Args:
            now: seconds since the epoch; `None` for the present.
        """
        if self.clock is None:
            return self
        return replace(self, at=_next_moment(self.clock, time.time() if now is None else now), clock=None)

    def moment(self, since: float) -> float:
        """Return the deadline of requests, in seconds of the monotonic clock; infinity for never.

        Args:
            since: time of the planning, in seconds of the monotonic clock.
        """
        if self.at == _NEVER:
            return since + self.seconds
        return min(since + self.seconds, time.monotonic() + self.at - time.time())

    def describe(self, now: float) -> str:
        """Return the deadline as a text with the time that is left.

        Args:
            now: seconds since the epoch.
        """
        if self.at == _NEVER:
            return f"{duration(self.seconds)} after the requests are planned"
        local = datetime.fromtimestamp(self.at).astimezone().isoformat(" ", "seconds")
        left = self.at - now
        return f"{local}, in {duration(left)}" if left > 0 else f"{local}, which has passed"


NO_DEADLINE = Deadline()
"""Deadline of a run that waits for each batch."""


def parse_deadline(value: float | str) -> Deadline:
    """Return the deadline that a number of seconds or a text means.

    Args:
        value: seconds, or a text: a number, a duration such as `90m`, a time of the day such as `06:00`, or an ISO 8601
            date-time, whose zone is the local one unless the text has a zone.

    Raises:
        ValueError: the text is none of these, or names a time that does not exist.
    """
    if not isinstance(value, str):
        return Deadline(seconds=float(value))
    text = value.strip()
    try:
        return Deadline(seconds=float(text))
    except ValueError:
        pass
    if clock := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in clock.groups())
        if hour < 24 and minute < 60 and second < 60:
            return Deadline(clock=time_of_day(hour, minute, second))
    elif date_time := _DATE_TIME.fullmatch(text):
        return Deadline(at=_read_date_time(value, date_time))
    elif (parts := _DURATION.fullmatch(text)) and any(parts.groups()):
        return Deadline(seconds=_read_duration(value, parts))
    raise _unreadable(value)


def _read_date_time(value: str, found: re.Match[str]) -> float:
    date, clock, is_utc, hours, minutes = found.groups()
    zone = "+00:00" if is_utc else f"{hours}:{minutes or '00'}" if hours else ""
    try:
        return datetime.fromisoformat(f"{date}T{_pad_fraction(clock)}{zone}").timestamp()
    except (ValueError, OverflowError, OSError):
        raise _unreadable(value) from None


def _pad_fraction(clock: str) -> str:
    """Return a time with six digits behind the point: Python 3.10 reads three or six."""
    whole, point, fraction = clock.partition(".")
    return f"{whole}{point}{fraction:0<6}" if point else whole


def _read_duration(value: str, found: re.Match[str]) -> float:
    try:
        return sum(float(part) * unit for part, unit in zip(found.groups(), _UNIT_SECONDS, strict=True) if part)
    except ValueError:
        raise _unreadable(value) from None


def _unreadable(value: str) -> ValueError:
    return ValueError(
        f"`deadline` is {value!r}. Write seconds (`21600`), a duration (`90m`, `4h`, `1h30m`, `2d`), a time of the day"
        " on the local clock (`06:00`), or a date and time (`2027-01-31T06:00`, `2027-01-31T06:00+01:00`)"
    )


def _next_moment(clock: time_of_day, now: float) -> float:
    """Return the next moment after `now` at which the local clock shows a time, in seconds since the epoch."""
    today = datetime.fromtimestamp(now).date()
    for day in range(_DAYS_SEARCHED):
        local = datetime.combine(today + timedelta(days=day), clock)
        # The clock shows an hour twice when summer time ends.
        for moment in (local.timestamp(), local.replace(fold=1).timestamp()):
            if moment > now and datetime.fromtimestamp(moment).time() == clock:
                return moment
    raise ValueError(f"The local clock shows {clock} on none of the next {_DAYS_SEARCHED} days")
