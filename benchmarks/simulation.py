"""Simulation of a large run: the package, from the session down, against a server in virtual time.

    python -m benchmarks.simulation SCENARIO REPORT

Real: the session and every object below, `BatchAPI` with the SDK, and the ledger on disk. Simulated: the clock, which
jumps to the next timer of the event loop, and the server. One simulated request stands for many.
"""

from __future__ import annotations

import asyncio
import json
import logging
import selectors
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import httpx

from benchmarks.questions import MODEL
from benchmarks.virtual_server import HOUR, Scenario, VirtualServer
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import session_pool
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.states import ScopeName

# Time at the start of the simulation, in seconds since the epoch.
_START = 1_800_000_000.0


class _JumpingSelector(selectors.SelectSelector):
    """Selector that advances the clock of the loop instead of waiting."""

    loop: _VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("Deadlock: every task waits, and no timer is set.")
        if not ready and timeout:
            # Rounding may leave the sum just below the time of the timer → add a microsecond.
            self.loop.now += timeout + 1e-6
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop with a virtual clock that runs functions for threads in the loop itself."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return asyncio.wrap_future(future, loop=self)


async def _run_sync(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Replace `anyio.to_thread.run_sync`: run `function` in the loop, because threads do not see virtual time."""
    await anyio.lowlevel.checkpoint()
    return function(*arguments)


def _settings(scenario: Scenario, folder: Path) -> SessionSettings:
    return SessionSettings(
        base_url="http://virtual/v1",
        api_key="sk-benchmark",
        headers=None,
        timeout=60.0,
        patience=Patience(),
        max_requests=scenario.per_job // scenario.stands_for,
        max_bytes=200_000_000,
        max_attempts=10,
        max_jobs=scenario.max_jobs,
        jobs=JobSettings("24h", PollSchedule(), {}),
        ledger_dir=folder,
        reuse_answers=True,
    )


async def _simulate(scenario: Scenario, folder: Path) -> dict[str, Any]:
    """Submit every request of the scenario, wait for the outcomes, and return the report."""
    loop = asyncio.get_running_loop()
    server = VirtualServer(scenario, time.time)

    class Client(httpx.AsyncClient):
        """Client of the virtual server, for every base URL."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options, transport=server.transport())

    httpx.AsyncClient = Client  # type: ignore[misc]
    calls = [
        APICall("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": str(number)}]})
        for number in range(scenario.requests // scenario.stands_for)
    ]
    logger = logging.getLogger("simulation")
    logger.setLevel(logging.ERROR)
    host = session_pool.Host(
        logger=logger,
        scope_name=lambda base_url: ScopeName("scale", "", base_url),
        observer=lambda scope: Observer(),
        interruption=lambda batch_ids: None,
        not_finished=lambda batch_ids: InterruptedError(str(batch_ids)),
    )
    async with session_pool.SessionPool(_settings(scenario, folder), host).use() as session:
        outcomes = await session.submit(calls)
    server.advance()
    answered = sum(isinstance(outcome, Answer) for outcome in outcomes)
    return {
        "hours": loop.time() / HOUR,
        "answered": answered * scenario.stands_for,
        "without_an_answer": (len(outcomes) - answered) * scenario.stands_for,
        **_server_report(server),
    }


def _server_report(server: VirtualServer) -> dict[str, Any]:
    scenario = server.scenario
    possible = scenario.token_limit * server.busy
    return {
        "utilisation": server.token_seconds / possible if possible else None,
        "hours_with_a_full_queue": server.all_token_seconds / scenario.token_limit / HOUR,
        "most_enqueued": server.most_enqueued,
        "most_created_per_hour": server.most_created,
        "rejected_creations": server.rejected_creations,
        "rejected_batches": server.rejected_batches,
        "batches": len(server._batches),
        "polls": server.polls,
        "calls": server.calls,
        "answered_twice": server.answered_twice * scenario.stands_for,
    }


def main() -> None:
    """Simulate the scenario given as JSON in the first argument, and write the report to the file of the second."""
    scenario = Scenario(**json.loads(sys.argv[1]))
    started = time.perf_counter()
    anyio.to_thread.run_sync = _run_sync  # type: ignore[assignment]
    # Ctrl+C is checked four times a second, too often for days of virtual time → check once an hour.
    session_pool._INTERRUPTION_CHECK_SECONDS = HOUR

    def make_loop() -> _VirtualLoop:
        loop = _VirtualLoop()
        time.monotonic = loop.time  # type: ignore[assignment]
        time.time = lambda: _START + loop.time()  # type: ignore[assignment]
        return loop

    with TemporaryDirectory(prefix="bench-") as folder:
        report = anyio.run(_simulate, scenario, Path(folder), backend_options={"loop_factory": make_loop})
    Path(sys.argv[2]).write_text(json.dumps(report | {"real_seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
