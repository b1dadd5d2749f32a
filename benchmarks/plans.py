"""Names of the contenders, and plans: sizes and repetitions of a run of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

PEERS = {
    "inspect_ai": ("inspect_ai==0.3.285", "openai"),
    "autobatcher": ("autobatcher==0.12.0",),
    "curator": ("bespokelabs-curator==0.1.31",),
}
"""Requirements of each contender with an environment of its own, `.venv-bench/NAME`."""

NAMES = {
    "ours": "`OpenAIBatchLLM`",
    "offline": "`OpenAILLM`, offline mode",
    "synchronous": "`OpenAILLM`",
    "inspect_ai": "inspect_ai",
    "autobatcher": "autobatcher",
    "curator": "bespokelabs-curator",
    "floor": "floor",
    "again": "`OpenAIBatchLLM`, run again",
    "elsewhere": "`OpenAIBatchLLM`, run again with an empty ledger",
    "stream": "`StreamBatchResults`",
    "none": "the same steps, without an LLM",
}
"""Display name of each contender."""


@dataclass(frozen=True)
class Plan:
    """Sizes and repetitions of a run of the benchmarks.

    Attributes:
        name: name on the command line.
        sizes: numbers of requests whose wall time is measured.
        peers_up_to: largest number of requests that contenders other than this package are given.
        cpu: number of requests whose CPU time is measured.
        memory: numbers of requests whose peak memory is measured.
        resume: number of answered requests that a second process finds in the ledger.
        ledger: number of requests in the ledger that commands read.
        adopted: number of answered requests that a process without their ledger finds on the server.
        others: number of other batches at that server.
        rows: rows of the distilabel Task whose jobs are counted.
        pipeline_rows: rows of the pipeline with UltraFeedback, and of the pipeline that is streamed.
        growth_rows: numbers of rows of the pipelines whose growth is measured, in ascending order.
        copied_rows: rows of the pipeline that is compared with a step that copies.
        job_seconds: seconds that a job is in progress while rows are streamed.
        synchronous: number of synchronous calls; their time is scaled to the other sizes. Also the rows of the pipeline
            with the synchronous LLM.
        scale: number of simulated requests.
        limits: limit of enqueued prompt tokens in each simulation.
        repetitions: repetitions of short runs, of which the median is reported.
        repeated_up_to: largest number of requests that is repeated.
        peers: `True` to include the contenders of `PEERS`.
        seconds: timeout of one run.
        peer_seconds: timeout of one run of a contender of `PEERS`.
    """

    name: str
    sizes: tuple[int, ...]
    peers_up_to: int
    cpu: int
    memory: tuple[int, ...]
    resume: int
    ledger: int
    adopted: int
    others: int
    rows: int
    pipeline_rows: int
    growth_rows: tuple[int, ...]
    copied_rows: int
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
        ledger=10_000_000,
        adopted=50_000,
        others=1_000,
        rows=10_000,
        pipeline_rows=5_000,
        growth_rows=(5_000, 10_000, 50_000, 200_000),
        copied_rows=40_000,
        job_seconds=2.0,
        synchronous=1_000,
        scale=10_000_000,
        # For scale: a job of 50,000 requests of 125 tokens has 6,250,000 tokens.
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
        ledger=2_000,
        adopted=500,
        others=150,
        rows=200,
        pipeline_rows=500,
        growth_rows=(200,),
        copied_rows=200,
        job_seconds=0.5,
        synchronous=100,
        scale=100_000,
        limits=(40_000_000,),
        repetitions=1,
        repeated_up_to=0,
        peers=False,
        seconds=900.0,
        peer_seconds=300.0,
    ),
}
"""Plans by name: `full` for `make bench`; `quick` for the shape of the results, too small for meaningful times."""
