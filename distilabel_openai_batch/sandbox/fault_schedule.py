"""Schedule of faults: the ordered faults and failures, and how often each is still to happen."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from .faults import AnyFault, BatchFault, Fault, ResultFault
from .model.scripts import SCRIPTS
from .settings import RequestFailure


@dataclass
class _ScheduledFault:
    """Fault with its counters.

    Attributes:
        fault: fault or failure.
        remaining: number of times the fault is still to happen; -1 for no limit.
        skip: number of matching events that pass first.
    """

    fault: AnyFault | RequestFailure
    remaining: int
    skip: int = 0

    def use(self) -> bool:
        """Count one matching event, and return `True` if the fault happens now."""
        if self.remaining == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.remaining > 0:
            self.remaining -= 1
        return True


class FaultSchedule:
    """Faults in the order in which they were added. The event loop and the worker threads share the schedule."""

    def __init__(self, failures: list[RequestFailure]) -> None:
        self._lock = threading.Lock()
        self._faults: list[_ScheduledFault] = []
        self._failures: list[_ScheduledFault] = []
        self.replace_failures(failures)

    def add(self, fault: AnyFault) -> None:
        """Append a fault."""
        with self._lock:
            self._faults.append(_ScheduledFault(fault, fault.times, fault.skip if isinstance(fault, Fault) else 0))

    def clear(self) -> None:
        """Remove every fault; the failures of the settings stay."""
        with self._lock:
            self._faults = []

    def replace_failures(self, failures: list[RequestFailure]) -> None:
        """Replace the failures of requests, with fresh counters."""
        with self._lock:
            self._failures = [
                _ScheduledFault(failure, -1 if failure.times is None else failure.times) for failure in failures
            ]

    def take_call_fault(self, call: str) -> Fault | None:
        """Return the fault of a call, and count the fault as used."""
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, Fault) and entry.fault.call in (call, "any") and entry.use():
                    return entry.fault
        return None

    def take_batch_faults(self) -> dict[str, BatchFault]:
        """Return the faults of a new batch, at most one of each kind, by kind; count the faults as used."""
        taken: dict[str, BatchFault] = {}
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, BatchFault) and entry.fault.kind not in taken and entry.use():
                    taken[entry.fault.kind] = entry.fault
        return taken

    def take_result_fault(self, body: bytes) -> ResultFault | None:
        """Return the fault of the result line of a request, and count the fault as used."""
        if not self._faults:
            return None
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, ResultFault) and entry.fault.contains.encode() in body and entry.use():
                    return entry.fault
        return None

    def take_script(self, body: bytes) -> ResultFault | None:
        """Return the fault that scripts the answer to a synchronous call, and count the fault as used."""
        with self._lock:
            for entry in self._faults:
                fault = entry.fault
                if (
                    isinstance(fault, ResultFault)
                    and fault.kind in SCRIPTS
                    and fault.contains.encode() in body
                    and entry.use()
                ):
                    return fault
        return None

    def take_failure(self, body: bytes, endpoint: Literal["batch", "sync"]) -> RequestFailure | None:
        """Return the failure with which a request is to be answered, and count the failure as used.

        Args:
            body: body of the request, as `canonical_json` serialises the body.
            endpoint: `batch` for a line of a batch, `sync` for a synchronous call.
        """
        if not self._failures:
            return None
        with self._lock:
            for entry in self._failures:
                failure = entry.fault
                if (
                    isinstance(failure, RequestFailure)
                    and failure.endpoint in (endpoint, "both")
                    and failure.matches(body)
                    and entry.use()
                ):
                    return failure
        return None
