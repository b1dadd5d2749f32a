"""How much a run measures."""

from __future__ import annotations

from dataclasses import dataclass

PEERS = {
    "inspect_ai": ("inspect_ai==0.3.285", "openai"),
    "autobatcher": ("autobatcher==0.12.0",),
    "curator": ("bespokelabs-curator==0.1.31",),
}
"""The contenders that have an environment of their own, `.venv-bench/NAME`, and what is installed there."""

NAMES = {
    "ours": "`OpenAIBatchLLM`",
    "offline": "`OpenAILLM`, offline mode",
    "synchronous": "`OpenAILLM`",
    "inspect_ai": "inspect_ai",
    "autobatcher": "autobatcher",
    "curator": "bespokelabs-curator",
    "floor": "floor",
    "again": "`OpenAIBatchLLM`, started again",
    "stream": "`StreamBatchResults`",
    "none": "the same steps, without an LLM",
}
"""Every contender, as the tables call it."""


@dataclass(frozen=True)
class Plan:
    """How much a run measures.

    Attributes:
        name: what it is called by.
        sizes: requests whose wall time is measured.
        peers_up_to: the largest of them that the others are given too.
        cpu: requests whose CPU time is measured.
        memory: requests whose memory is measured.
        resume: answered requests that a run is started with again.
        rows: rows of the Task whose jobs are counted.
        pipeline_rows: rows of the whole pipeline.
        job_seconds: how long a job is under way where rows are streamed.
        synchronous: calls of the synchronous sample.
        scale: requests of the simulation.
        limits: prompt tokens enqueued at once, at most, in each of the simulations; the first has all the requests.
        repetitions: of what takes seconds; the medians are reported. What takes longer is run once.
        repeated_up_to: the largest number of requests that is repeated.
        peers: whether those take part that have to be installed.
        seconds: the time that one run is given.
        peer_seconds: the same, for those that have to be installed.
    """

    name: str
    sizes: tuple[int, ...]
    peers_up_to: int
    cpu: int
    memory: tuple[int, ...]
    resume: int
    rows: int
    pipeline_rows: int
    job_seconds: float
    synchronous: int
    scale: int
    limits: tuple[int, ...]
    repetitions: int
    repeated_up_to: int
    peers: bool
    seconds: float
    peer_seconds: float


PLANS = {
    "full": Plan(
        name="full",
        sizes=(1_000, 50_000, 200_000, 1_000_000),
        peers_up_to=200_000,
        cpu=50_000,
        memory=(50_000, 1_000_000),
        resume=1_000_000,
        rows=10_000,
        pipeline_rows=5_000,
        job_seconds=2.0,
        synchronous=1_000,
        scale=10_000_000,
        # A job of 50,000 requests has 6,250,000 tokens.
        limits=(90_000_000, 40_000_000, 250_000_000),
        repetitions=3,
        repeated_up_to=50_000,
        peers=True,
        seconds=900.0,
        peer_seconds=300.0,
    ),
    "quick": Plan(
        name="quick",
        sizes=(500, 2_000),
        peers_up_to=2_000,
        cpu=2_000,
        memory=(500, 2_000),
        resume=2_000,
        rows=200,
        pipeline_rows=500,
        job_seconds=0.5,
        synchronous=100,
        scale=200_000,
        limits=(40_000_000,),
        repetitions=1,
        repeated_up_to=0,
        peers=False,
        seconds=60.0,
        peer_seconds=60.0,
    ),
}
"""`full` is what `make bench` measures; `quick` is there for the shape of what comes out, not for times."""
