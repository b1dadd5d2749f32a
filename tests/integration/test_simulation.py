"""Random interleavings of runs, faults, kills and restarts: the promises hold in all of them.

Each seed simulates the life of one ledger and one server. In each run several callers submit some of the questions at
once while the server has faults, and most runs die at a random failpoint. The last run has no faults. A seed that fails
fails again: `pytest tests/integration/test_simulation.py -k 17`.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from collections import Counter

import anyio
import httpx
import pytest

from distilabel_openai_batch import RunError, failpoints
from distilabel_openai_batch.api import client, creation, files, transport
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.calls import APICall, scope_memories
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.session_pool import Host, _open
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.files import FILE_NAME
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.sandbox import BatchFault, Fault, ResultFault
from tests.support.environment import API_KEY
from tests.support.ledgers import list_requests

pytestmark = pytest.mark.usefixtures("small_packs")

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

CHAT = "/v1/chat/completions"
LIVES = int(os.environ.get("SIMULATED_LIVES", "6"))
RUNS_PER_LIFE = 25

# Results that the server loses are left out, because their requests have to be billed again.
FAULTS = [
    *(
        Fault(call=call, **kind)
        for call in ("files.create", "batches.create", "batches.retrieve", "batches.list", "files.content")
        for kind in (
            {"kind": "status", "status": 503},
            {"kind": "status", "status": 429, "headers": {"Retry-After": "0.01"}},
            {"kind": "cut_before"},
            {"kind": "cut_after", "times": 2},
            {"kind": "status", "status": 401},
        )
    ),
    Fault(call="files.content", kind="truncate", times=2),
    *(BatchFault(kind=kind) for kind in ("expire", "cancel", "upper_case", "null_counts", "empty_file_ids", "bare")),
    BatchFault(kind="status", value="SCHEDULING", looks=2),
    BatchFault(kind="fail", value={"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}),
    *(ResultFault(kind=kind, times=3) for kind in ("double", "unknown", "blank", "string_body", "to_error_file")),
]


class Killed(BaseException):
    """Death of the process at a failpoint."""


class Life:
    """Life of one ledger on one server, with a list of questions.

    Args:
        seed: the seed of every random choice.
        sandbox: the server.
        folder: the directory of the ledger.
    """

    def __init__(self, seed: int, sandbox, folder) -> None:
        self.random = random.Random(seed)
        self.sandbox = sandbox
        self.folder = folder
        self.steps = 0
        # Some questions occur more than once.
        self.questions = [f"Say {self.random.randrange(20)}." for _ in range(30)]

    def settings(self, waits: bool) -> SessionSettings:
        return SessionSettings(
            base_url=self.sandbox.base_url,
            api_key=API_KEY,
            headers=None,
            timeout=5.0,
            patience=Patience(retries=8),
            max_requests=self.random.choice([3, 10, 1_000]),
            max_bytes=200_000_000,
            max_attempts=5,
            max_jobs=self.random.choice([1, 3, 20]),
            jobs=JobSettings("24h", PollSchedule(0.005, 0.01), {}, wait=waits),
            ledger_dir=self.folder,
            reuse_answers=True,
        )

    async def run(self, questions: list[str], dies_after: int | None, waits: bool = True) -> list[object]:
        """Submit questions by several callers of a new process, which dies after a number of failpoints."""
        scope_memories.clear()
        remaining = dies_after

        def reached(failpoint: failpoints.Failpoint) -> None:
            nonlocal remaining
            self.steps += 1
            if remaining is not None:
                remaining -= 1
                if remaining < 0:
                    raise Killed(failpoint.value)

        failpoints.reached = reached
        results: list[object] = [None] * len(questions)
        size = self.random.randrange(1, 12)
        settings = self.settings(waits)
        host = Host(
            logger=logging.getLogger("simulation"),
            scope_name=lambda base_url: ScopeName("life", "", base_url),
            observer=lambda scope: Observer(),
            interruption=lambda batch_ids: None,
            not_finished=lambda batch_ids: InterruptedError(str(batch_ids)),
        )
        async with _open(settings, host) as opened:

            async def submit(start: int) -> None:
                chat = [[{"role": "user", "content": question}] for question in questions[start : start + size]]
                calls = [APICall(CHAT, {"model": "gpt-4o-mini", "messages": messages}) for messages in chat]
                results[start : start + size] = await opened.submit(calls)

            async with anyio.create_task_group() as task_group:
                for start in range(0, len(questions), size):
                    task_group.start_soon(submit, start)
        return results

    def draw_faults(self) -> None:
        """Give the server other faults; one run in ten loses the ledger."""
        self.sandbox.clear_faults()
        for fault in self.random.sample(FAULTS, self.random.randrange(4)):
            self.sandbox.add_fault(fault)
        if self.random.random() < 0.1:
            for path in self.folder.glob(f"{FILE_NAME}*"):
                path.unlink()


def assert_expected(error: BaseException) -> None:
    """Assert that a run ended with a kill, an interruption or an error of the run."""
    causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
    for cause in causes:
        if isinstance(cause, BaseExceptionGroup):
            assert_expected(cause)
        else:
            assert isinstance(cause, (Killed, InterruptedError, RunError)), repr(cause)


@pytest.fixture(autouse=True)
def restore_failpoints(monkeypatch):
    """Undo the changes of a life after each test, and shorten all pauses."""
    monkeypatch.setattr(failpoints, "reached", failpoints.reached)
    monkeypatch.setattr(transport.Patience, "pause", lambda self, attempt: 0.005)
    monkeypatch.setattr(creation, "CREATION_SECONDS", 0.02)
    monkeypatch.setattr(files, "RESULTS_VISIBLE_SECONDS", 0.1)
    monkeypatch.setattr(client, "FILE_IDS_SECONDS", 0.2)


@pytest.mark.parametrize("seed", range(LIVES))
def test_the_promises_hold(sandbox, tmp_path, seed):
    """Each row has its own answer, each request is billed once, no billed answer is lost, and the run ends."""
    life = Life(seed, sandbox, tmp_path / "ledger")
    for _ in range(RUNS_PER_LIFE):
        life.draw_faults()
        questions = life.questions[: life.random.randrange(1, len(life.questions) + 1)]
        try:
            anyio.run(life.run, questions, life.random.choice([None, *range(40)]), life.random.random() < 0.8)
        except BaseException as error:
            assert_expected(error)
    sandbox.clear_faults()
    outcomes = anyio.run(life.run, life.questions, None)

    client = httpx.Client(base_url=sandbox.base_url, headers={"Authorization": f"Bearer {API_KEY}"})
    for question, outcome in zip(life.questions, outcomes, strict=True):
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}]}
        expected = client.post("/chat/completions", json=body).json()
        assert isinstance(outcome, Answer)
        assert outcome.body["choices"] == expected["choices"]
    billed = sandbox.books().billed
    assert set(billed.values()) == {1}
    assert Counter(custom_id.partition("-")[0] for custom_id in billed).total() == len(life.questions)
    assert list_requests(life.folder, "answered") == set(billed)
    assert life.steps > 5
