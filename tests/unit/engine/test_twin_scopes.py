"""Other scopes with answers to the same requests."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from msgspec import structs

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.requests import Request, build_custom_id, digest_body
from distilabel_openai_batch.engine.answer_reuse import AnswerReuse
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.twin_scopes import TwinScopes
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import ScopeName
from tests.unit.engine.fake_batch_api import CHAT

SCOPE = ScopeName("pipeline", "task", "https://api.example.com/v1/")
SENT = [
    orjson.dumps({"model": "m", "n": 1, "max_tokens": 9, "messages": [{"role": "user", "content": str(i)}]})
    for i in range(4)
]
BUILT = [orjson.dumps({**orjson.loads(body), "logprobs": False, "top_logprobs": None, "stop": None}) for body in SENT]


class Recorder(Observer):
    """Observer that records the scopes with answers."""

    def __init__(self) -> None:
        self.found: list[tuple[ScopeName, int, int]] = []
        self.names: list[str] = []

    def on_answers_elsewhere(self, scope, name, known, sampled, own_address) -> None:
        self.found.append((scope, known, sampled))
        self.names.append(name)


def custom_ids(base_url: str) -> list[str]:
    return [build_custom_id(digest_body(base_url, CHAT, body), 0) for body in BUILT]


def requests() -> list[Request]:
    """Return requests of `SCOPE`."""
    return [Request(name, CHAT, "m", body) for name, body in zip(custom_ids(SCOPE.base_url), SENT, strict=True)]


def make_reuse(ledger: Ledger, *sources: int) -> AnswerReuse:
    """Return a reuse of other scopes' answers that has seen the requests of `SCOPE`."""
    names = ledger.other_scopes.list_names()
    chosen = [(scope_id, name) for scope_id, name in names if scope_id in sources]
    reuse = AnswerReuse(ledger, chosen, Observer(), {name.base_url for _, name in names})
    for request, body in zip(requests(), BUILT, strict=True):
        call = APICall(CHAT, orjson.loads(request.body), identity=orjson.loads(body))
        reuse.add_digests(request.custom_id, call)
    return reuse


def leave_answers(ledger: Ledger, scope: ScopeName, count: int = 4) -> None:
    """Record answers to the first requests in another scope, as an earlier run did."""
    other = Ledger(ledger.path.parent, scope)
    results = [(custom_id, Answer.of({"id": "a"})) for custom_id in custom_ids(scope.base_url)[:count]]
    other.adopted_jobs.add_ended(Batch(f"batch_{scope.full_label}", "completed", endpoint=CHAT), scope.label, results)
    other.close()


@pytest.mark.parametrize(
    ("scope", "answered"),
    [
        (replace(SCOPE, pipeline="renamed"), 4),
        (replace(SCOPE, pipeline="renamed"), 2),
        (replace(SCOPE, base_url="http://api.example.com/v1/"), 4),
        (ScopeName("script.py", "", "http://elsewhere/v1/"), 4),
    ],
    ids=["another pipeline", "half of the answers", "another scheme", "a script at another server"],
)
async def test_a_scope_with_answers_to_the_same_requests_is_found(ledger, scope, answered):
    leave_answers(ledger, scope, answered)
    recorder = Recorder()
    twins = TwinScopes(ledger, recorder, make_reuse(ledger))
    await twins.search(requests())
    await twins.search(requests())
    assert recorder.found == [(scope, answered, 4)]


@pytest.mark.parametrize(
    ("scope", "answered"),
    [
        (replace(SCOPE, task="sibling"), 4),
        (replace(SCOPE, pipeline="other"), 1),
        (replace(SCOPE, base_url="http://127.0.0.1:8471/v1/"), 4),
    ],
    ids=["another Task of the pipeline", "few answers", "a rehearsal at a server of this machine"],
)
async def test_other_scopes_are_not_reported(ledger, scope, answered):
    leave_answers(ledger, scope, answered)
    recorder = Recorder()
    await TwinScopes(ledger, recorder, make_reuse(ledger)).search(requests())
    assert recorder.found == []


async def test_a_scope_is_reported_unless_its_answers_are_taken_anyhow(ledger):
    """The steps of the pipeline are known: `renamed` is none of them, so its answers are an earlier run's."""
    leave_answers(ledger, replace(SCOPE, task="renamed"))
    leave_answers(ledger, replace(SCOPE, task="sibling"))
    others = ledger.other_scopes.list_names()
    recorder = Recorder()
    await TwinScopes(ledger, recorder, make_reuse(ledger), ("task", "sibling")).search(requests())
    assert recorder.names == ["pipeline/renamed"]
    recorder = Recorder()
    taken = [scope_id for scope_id, scope in others if scope.task == "renamed"]
    await TwinScopes(ledger, recorder, make_reuse(ledger, *taken), ("task", "sibling")).search(requests())
    assert recorder.found == []


async def test_the_scope_with_most_answers_is_reported_and_of_equal_ones_the_newest(ledger):
    for name in ("oldest", "newest", "few"):
        leave_answers(ledger, replace(SCOPE, pipeline=name), 2 if name == "few" else 4)
    recorder = Recorder()
    await TwinScopes(ledger, recorder, make_reuse(ledger)).search(requests())
    assert recorder.names == ["newest/task"]


async def test_new_requests_may_precede_the_others(ledger):
    """At least half of the requests have to be the same."""
    leave_answers(ledger, replace(SCOPE, pipeline="renamed"))
    new = [Request(f"{number:032x}-0", CHAT, "m", b"{}") for number in range(100)]
    recorder = Recorder()
    await TwinScopes(ledger, recorder, make_reuse(ledger)).search([*new[:3], *requests()])
    await TwinScopes(ledger, recorder, make_reuse(ledger)).search([*new, *requests()])
    assert [(answered, sampled) for _, answered, sampled in recorder.found] == [(4, 7)]


async def test_an_answer_that_was_taken_before_is_not_offered_again(ledger):
    """The scope has taken each answer once, and now makes the same requests a second time."""
    old = replace(SCOPE, pipeline="renamed")
    leave_answers(ledger, old)
    [scope_id] = [scope_id for scope_id, name in ledger.other_scopes.list_names() if name == old]
    ledger.reused_answers.take(scope_id, {each.custom_id: each.custom_id.rpartition("-")[0] for each in requests()})
    recorder = Recorder()
    again = [structs.replace(request, custom_id=request.custom_id[:-1] + "1") for request in requests()]
    await TwinScopes(ledger, recorder, make_reuse(ledger)).search(again)
    assert recorder.found == []
