"""The script of what goes wrong: which failures and faults are still to come."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

from .faults import AnyFault, BatchFault, Fault, ResultFault
from .settings import RequestFailure


@dataclass
class _Entry:
    """A fault, and how many times it is still to happen (-1 for ever)."""

    fault: AnyFault | RequestFailure
    left: int
    skip: int = 0

    def spend(self) -> bool:
        """Returns whether the fault happens now, and counts it."""
        if self.left == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.left > 0:
            self.left -= 1
        return True


class Script:
    """Faults in the order they were added. Asked by the event loop and by the threads that answer, hence the lock."""

    def __init__(self, failures: list[RequestFailure]) -> None:
        self._lock = threading.Lock()
        self._faults: list[_Entry] = []
        self._failures: list[_Entry] = []
        self.replace_failures(failures)

    def add(self, fault: AnyFault) -> None:
        """Appends a fault."""
        with self._lock:
            self._faults.append(_Entry(fault, fault.times, fault.skip if isinstance(fault, Fault) else 0))

    def clear(self) -> None:
        """Forgets every fault; the failures of the settings stay."""
        with self._lock:
            self._faults = []

    def replace_failures(self, failures: list[RequestFailure]) -> None:
        """Starts afresh with these failures of requests."""
        with self._lock:
            self._failures = [_Entry(failure, -1 if failure.times is None else failure.times) for failure in failures]

    def for_call(self, call: str) -> Fault | None:
        """Returns what goes wrong with this call, and counts it."""
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, Fault) and entry.fault.call in (call, "any") and entry.spend():
                    return entry.fault
        return None

    def for_batch(self) -> list[BatchFault]:
        """Returns what goes wrong with a batch that is being created, one of each kind, and counts it."""
        taken: dict[str, BatchFault] = {}
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, BatchFault) and entry.fault.kind not in taken and entry.spend():
                    taken[entry.fault.kind] = entry.fault
        return list(taken.values())

    def for_result(self, body: bytes) -> ResultFault | None:
        """Returns what goes wrong with the result line of this request, and counts it."""
        if not self._faults:
            return None
        with self._lock:
            for entry in self._faults:
                if isinstance(entry.fault, ResultFault) and entry.fault.contains.encode() in body and entry.spend():
                    return entry.fault
        return None

    def for_request(self, body: bytes, way: Literal["batch", "sync"]) -> RequestFailure | None:
        """Returns the failure that this request is answered with, and counts it."""
        if not self._failures:
            return None
        with self._lock:
            for entry in self._failures:
                failure = entry.fault
                if (
                    isinstance(failure, RequestFailure)
                    and failure.endpoint in (way, "both")
                    and failure.concerns(body)
                    and entry.spend()
                ):
                    return failure
        return None
