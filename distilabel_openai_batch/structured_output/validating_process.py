"""Program of the process of slow validations: a line of JSON in, a line of JSON out.

    {"schema": {…}, "value": …, "seconds": 2.0}   {"errors": […]}, or {"failure": "…"} if the schema cannot be applied

The process ends itself when a validation takes longer than its seconds of computing time, when its input ends, and
after a minute without input: the process that started it may have been killed.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from distilabel_openai_batch.structured_output.validator import create_validator, describe_errors

_IDLE_SECONDS = 60.0

# Windows has no timers → the process that sends the requests ends this process after a minute.
_HAS_TIMERS = hasattr(signal, "setitimer")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the errors of a value, or the failure of the schema."""
    try:
        return {"errors": describe_errors(create_validator(request["schema"]), request["value"])}
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer requests until the input ends."""
    # Ctrl+C in a terminal reaches this process too, and its parent still needs the process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _HAS_TIMERS:
        # A parent that ignores these signals hands that on.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    while True:
        if _HAS_TIMERS:
            signal.setitimer(signal.ITIMER_REAL, _IDLE_SECONDS)
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            return
        request = json.loads(line)
        if _HAS_TIMERS:
            signal.setitimer(signal.ITIMER_REAL, 0)
            # The default action of the signal ends the process, while a handler would wait for the regular expression.
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        reply = json.dumps(answer(request)).encode()
        if _HAS_TIMERS:
            signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()
