"""Runs our own scheduler, all of it from the session down, against a server in virtual time.

    python -m benchmarks.simulation SCENARIO REPORT

Real: `Session`, `CallBuffer`, `Broker`, `Jobs`, `PollSchedule`, `BatchAPI` with the SDK, and the ledger on the disk.
Simulated: the clock, which jumps to whatever is due next, and the server. One request stands for many, so that ten
million fit.
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
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.session import Jobs
from distilabel_openai_batch.engine.session_pool import _open
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.states import ScopeName

_BEGINNING = 1_800_000_000.0


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: time jumps to when the loop wanted to be woken."""

    loop: _VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("Everybody waits, and nothing will ever happen.")
        if not ready and timeout:
            # A little more, since adding what is left to the time may fall short of when it is due.
            self.loop.now += timeout + 1e-6
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps, and which knows no threads."""

    def __init__(self) -> None:
        selector = _Jumping()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return asyncio.wrap_future(done, loop=self)


async def _run_sync(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """In place of `anyio.to_thread.run_sync`: a thread would not know what time it is."""
    await anyio.lowlevel.checkpoint()
    return function(*arguments)


async def _simulate(scenario: Scenario, folder: Path) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    server = VirtualServer(scenario, time.time)

    class Client(httpx.AsyncClient):
        """Reaches the server, whatever it is made with."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options, transport=server.transport())

    settings = SessionSettings(
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
    httpx.AsyncClient = Client  # type: ignore[misc]
    calls = [
        APICall("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": str(number)}]})
        for number in range(scenario.requests // scenario.stands_for)
    ]
    logger = logging.getLogger("simulation")
    logger.setLevel(logging.ERROR)
    async with _open(
        settings,
        lambda base_url: ScopeName("scale", "", base_url),
        logger,
        lambda batch_ids: None,
        lambda batch_ids: InterruptedError(str(batch_ids)),
    ) as opened:
        outcomes = await opened.submit(calls)
    server.advance()
    seconds = loop.time()
    possible = scenario.token_limit * server.busy
    answered = sum(isinstance(outcome, Answer) for outcome in outcomes)
    return {
        "hours": seconds / HOUR,
        "utilisation": server.token_seconds / possible if possible else None,
        "hours_with_a_full_queue": server.all_token_seconds / scenario.token_limit / HOUR,
        "most_enqueued": server.most_enqueued,
        "most_created_in_an_hour": server.most_created,
        "refused_creations": server.refused_creations,
        "refused_batches": server.refused_batches,
        "batches": len(server._batches),
        "looks": server.looks,
        "calls": server.calls,
        "answered": answered * scenario.stands_for,
        "without_an_answer": (len(outcomes) - answered) * scenario.stands_for,
        "answered_twice": server.answered_twice * scenario.stands_for,
    }


def main() -> None:
    """Runs the scenario given as JSON in the first argument; the report goes to the second."""
    scenario = Scenario(**json.loads(sys.argv[1]))
    really = time.perf_counter()
    anyio.to_thread.run_sync = _run_sync  # type: ignore[assignment]
    # Bound when the module was imported.
    Jobs._in_thread = staticmethod(_run_sync)  # type: ignore[method-assign, assignment]
    # Nobody presses Ctrl+C, and four looks at it a second make days of virtual time long.
    _INTERRUPTION_CHECK_SECONDS = HOUR
    loop: list[_VirtualLoop] = []

    def make_loop() -> _VirtualLoop:
        loop.append(_VirtualLoop())
        time.monotonic = loop[-1].time  # type: ignore[assignment]
        time.time = lambda: _BEGINNING + loop[-1].time()  # type: ignore[assignment]
        return loop[-1]

    with TemporaryDirectory(prefix="bench-") as folder:
        report = anyio.run(_simulate, scenario, Path(folder), backend_options={"loop_factory": make_loop})
    Path(sys.argv[2]).write_text(json.dumps(report | {"real_seconds": time.perf_counter() - really}))


if __name__ == "__main__":
    main()
