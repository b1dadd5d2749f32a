"""Comparison of a ledger that keeps requests in packs with a ledger that keeps each request in a row."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import replace
from hashlib import md5
from operator import attrgetter

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure, build_result_line
from distilabel_openai_batch.api.requests import build_custom_id
from distilabel_openai_batch.ledger import pack_table
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.row_pages import STATES, RowReader
from distilabel_openai_batch.ledger.states import TRANSITIONS, JobState, ScopeName
from tests.unit.ledger.samples import CHAT, make_shard

SCOPES = [ScopeName("pipeline", task, "https://api.example.com/v1/") for task in ("first", "second")]
DIGESTS = [md5(str(number).encode()).hexdigest() for number in range(30)]
NAMES = [build_custom_id(digest, number) for digest in DIGESTS for number in (0, 1)]
ODD_NAMES = ["a-0", "b-1", NAMES[0].upper(), f"{DIGESTS[0]}-01", f"{DIGESTS[0]}-2000000"]
TEXTS = ["The sky is blue.", 'A "quoted"\nanswer', "Ärger", "100 % of “trees”"]

SEARCHED = ["SKY", 'd"\nan', "ärger", "“trees”", DIGESTS[3][:6].upper(), "filter"]

LIMIT_OF_ROWS = 10**9


class Twins:
    """Two ledgers that have the same operations, one with packs and one with rows alone."""

    def __init__(self, folder, monkeypatch, seed: int) -> None:
        self.random = random.Random(seed)
        self._folder = folder
        self._monkeypatch = monkeypatch
        self._now = 1_800_000_000.0
        self.jobs: list[tuple[int, int]] = []
        self._ledgers: dict[tuple[bool, int], Ledger] = {}
        monkeypatch.setattr(time, "time", lambda: self._now)
        self.open()

    def open(self) -> None:
        """Close the ledgers and open them again, as a second session does."""
        self.close()
        is_compressed = self.random.random() < 0.5
        for is_packed in (True, False):
            for number, scope in enumerate(SCOPES):
                folder = self._folder / ("packs" if is_packed else "rows")
                self._ledgers[is_packed, number] = Ledger(folder, scope, is_compressed=is_compressed)

    def close(self) -> None:
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()

    def apply(self, scope: int, operation) -> None:
        """Apply an operation to a scope of both ledgers; its results must be equal."""
        self._now += 1
        results = []
        for is_packed in (True, False):
            self._monkeypatch.setattr(pack_table, "MIN_PACK", 1 if is_packed else LIMIT_OF_ROWS)
            results.append(operation(self._ledgers[is_packed, scope]))
        assert results[0] == results[1]

    def compare(self) -> None:
        """Compare all that sessions and commands read."""
        for scope in range(len(SCOPES)):
            self.apply(scope, observe_session)
        observed = [observe_commands(self._folder / name) for name in ("packs", "rows")]
        for name in observed[0]:
            assert observed[0][name] == observed[1][name], name


def observe_session(ledger: Ledger) -> list[object]:
    known = ledger.requests.look_up([*NAMES, *ODD_NAMES])
    return [
        {
            name: (request.job, request.outcome, request.outcome and request.outcome.tokens)
            for name, request in known.items()
        },
        ledger.requests.find_dropped([*NAMES, *ODD_NAMES]),
        ledger.requests.batch_ids([*NAMES, *ODD_NAMES]),
        [ledger.requests.next_occurrence(digest) for digest in [*DIGESTS, "a"]],
        ledger.row_failures.list_rejected(),
        ledger.outlines.count_answers(time.time() - 20),
        ledger.outlines.list_outlines(time.time() - 20),
        [sorted(ledger.requests.request_ids(job)) for job in ledger.jobs.list_open()],
        [ledger.reused_answers.count(number, {name: name[:32] for name in NAMES}) for number in (1, 2)],
        [ledger.reused_answers.find_pending(number, {name: name[:32] for name in NAMES}) for number in (1, 2)],
    ]


def observe_commands(folder) -> dict[str, object]:
    reader = RowReader(folder)
    scopes = reader.scopes()
    seen: dict[str, object] = {
        "scopes": scopes,
        "jobs": [replace(job, long_usages=tuple(sorted(job.long_usages, key=str))) for job in reader.jobs()],
        "failures": by_name(reader.failures(scopes)),
    }
    for scope in scopes:
        for is_last in (False, True):
            seen[f"answers {scope.id} {is_last}"] = by_name(reader.answers(scope, of_last_run=is_last))
        seen[f"count {scope.id}"] = reader.count_answers(scope)
        seen[f"submitted {scope.id}"] = reader.find_submitted(scope.name, [*NAMES, *ODD_NAMES])
        for state, text in [*((state, "") for state in STATES), *(("all", text) for text in SEARCHED)]:
            seen[f"page {scope.id} {state} {text}"] = pages(reader, scope.id, state, text)
        found = {number: reader.find_row(scope.id, number) for number in range(1, 150, 13)}
        rows = reader.read_rows([id_ for id_ in found.values() if id_])
        assert reader.number_rows(scope.id, rows) == [number for number, id_ in found.items() if id_]
        seen[f"rows {scope.id}"] = len(rows)
    return seen


def by_name(entries) -> list:
    """Return entries in the order of their `custom_id`s: rows follow the packs of their job."""
    return sorted(entries, key=attrgetter("custom_id"))


def pages(reader: RowReader, scope_id: int, state: str, text: str) -> list[tuple]:
    """Return the facts of all rows, page by page."""
    rows, after = [], 0
    while after is not None:
        page = reader.page(scope_id, after, 7, state, text)
        rows += page.rows
        after = page.next_id
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    return [
        (
            row.custom_id,
            row.job,
            row.batch_id,
            row.model,
            row.state,
            row.attempts,
            row.tokens_in,
            row.tokens_out,
            row.tokens_reasoning,
            row.status_code,
            row.code,
            row.message,
            row.is_cut,
            row.answer and row.answer.line,
            row.prompt_start,
        )
        for row in by_name(rows)
    ]


def choose(twins: Twins, most: int = 30) -> list[str]:
    """Return some names, in a random order or in their own."""
    names = twins.random.sample([*NAMES, *ODD_NAMES], twins.random.randint(1, most))
    return sorted(names) if twins.random.random() < 0.5 else names


def make_outcome(twins: Twins) -> Answer | Failure:
    kind = twins.random.random()
    if kind < 0.1:
        return Failure("The response was filtered.", 400, "content_filter", (7, 0))
    text = twins.random.choice(TEXTS)
    body = {"model": "gpt-4o-mini", "choices": [{"message": {"content": text}}]}
    tokens = twins.random.choice([(5, 3), (0, 0), (200_000, 9), (5, 2**33)])
    answer = Answer(build_result_line("", body), tokens, twins.random.choice([(0, 0, 0), (2, 0, 1), (0, 3, 0)]))
    if kind > 0.95:
        answer.tier = "flex"
    return answer


def plan(twins: Twins, scope: int) -> None:
    names = choose(twins)
    state = twins.random.choice([JobState.PLANNED, JobState.PLANNED, JobState.PLANNED, JobState.SYNCHRONOUS])

    def operation(ledger: Ledger) -> object:
        job, claimed = ledger.jobs.plan(make_shard(*names), state)
        if state is JobState.PLANNED:
            ledger.jobs.mark_created(ledger.jobs.mark_uploaded(job, "file-1"), Batch(f"batch_{job.id}", "in_progress"))
        return job.id, sorted(claimed)

    twins.apply(scope, operation)


def on_open_job(twins: Twins, scope: int, operation) -> None:
    """Apply an operation to an open job, if there is any."""
    place = twins.random.random()

    def on_job(ledger: Ledger) -> object:
        jobs = ledger.jobs.list_open()
        return operation(ledger, jobs[int(place * len(jobs))]) if jobs else None

    twins.apply(scope, on_job)


def record(twins: Twins, scope: int) -> None:
    outcomes = {name: make_outcome(twins) for name in [*NAMES, *ODD_NAMES]}
    share = twins.random.choice([1, 1, 1, 0.5])
    names = {name for name in outcomes if twins.random.random() < share}

    def operation(ledger: Ledger, job) -> None:
        request_ids = ledger.requests.request_ids(job)
        ledger.requests.record(request_ids, {name: outcomes[name] for name in request_ids if name in names})

    on_open_job(twins, scope, operation)


def collect(twins: Twins, scope: int) -> None:
    def operation(ledger: Ledger, job) -> None:
        if job.state is JobState.CREATED:
            job = ledger.jobs.mark_ended(job, Batch(job.batch_id, "completed"))
        if JobState.COLLECTED in TRANSITIONS[job.state]:
            ledger.jobs.mark_collected(job, MISSING_RESULT)

    on_open_job(twins, scope, operation)


def drop(twins: Twins, scope: int) -> None:
    on_open_job(twins, scope, lambda ledger, job: ledger.jobs.mark_dropped(job, "no reason") and None)


def deliver(twins: Twins, scope: int) -> None:
    names = twins.random.choice([NAMES, choose(twins), choose(twins, 3)])
    twins.apply(scope, lambda ledger: ledger.requests.mark_delivered(names, time.time()))


def reject(twins: Twins, scope: int) -> None:
    names = choose(twins, 4)
    failures = {name: twins.random.choice([None, Failure("filtered", code="refusal")]) for name in names}
    twins.apply(scope, lambda ledger: ledger.row_failures.record_rejections(failures))
    twins.apply(scope, lambda ledger: ledger.row_failures.record_prompt_starts(dict.fromkeys(names, "Why?")))


def cut(twins: Twins, scope: int) -> None:
    names = choose(twins, 4)
    twins.apply(scope, lambda ledger: ledger.row_failures.record_cut(names))


def leave_unsent(twins: Twins, scope: int) -> None:
    failures = dict.fromkeys(choose(twins, 4), Failure("The prompt is empty.", code="empty"))
    twins.apply(scope, lambda ledger: ledger.row_failures.record_unsent(failures))


def adopt(twins: Twins, scope: int) -> None:
    names = choose(twins)
    results = [(name, make_outcome(twins)) for name in names]
    batch_id = f"batch_adopted_{twins.random.random()}"
    if twins.random.random() < 0.5:
        batch = Batch(batch_id, "completed", endpoint=CHAT)
        twins.apply(scope, lambda ledger: ledger.adopted_jobs.add_ended(batch, batch_id, results))
    else:
        batch = Batch(batch_id, "in_progress", endpoint=CHAT)
        twins.apply(scope, lambda ledger: ledger.adopted_jobs.add_in_progress(batch, batch_id, names))


def reuse(twins: Twins, scope: int) -> None:
    digests = {name: name[:32] for name in twins.random.sample(NAMES, 10)}
    for source in (1, 2):
        twins.apply(scope, lambda ledger, source=source: sorted(ledger.reused_answers.take(source, digests)))


def forget(twins: Twins, scope: int) -> None:
    twins.apply(scope, lambda ledger: ledger.requests.forget())


OPERATIONS = [*[plan] * 5, *[record] * 6, *[collect] * 4, *[deliver] * 3, drop, reject, cut, leave_unsent, adopt, reuse]


@pytest.mark.parametrize("seed", range(2))
def test_packs_and_rows_are_read_alike(tmp_path, monkeypatch, seed):
    twins = Twins(tmp_path, monkeypatch, seed)
    with ExitStack() as stack:
        stack.callback(twins.close)
        for step in range(36):
            operation = twins.random.choice(OPERATIONS)
            operation(twins, twins.random.randrange(len(SCOPES)))
            if step % 12 == 11:
                twins.compare()
                twins.open()
        forget(twins, 0)
        plan(twins, 0)
        twins.compare()
