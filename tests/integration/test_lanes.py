"""Lanes: the flex tier, batches and the synchronous endpoint give the same rows; only price and speed differ."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from pydantic import ValidationError

from distilabel_openai_batch import AuthenticationError, OpenAIBatchEmbeddings, OpenAIBatchLLM
from distilabel_openai_batch.engine import sync_sender
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.sandbox import Fault, RequestFailure
from tests.support.environment import load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(12)]
pytestmark = pytest.mark.usefixtures("quick_retries")


def generate(questions=QUESTIONS, **fields):
    """Return the outputs that a new process gets from a model with the flex tier."""
    llm = OpenAIBatchLLM(**{"model": "gpt-5-mini", "min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(questions)


def count_requests(sandbox) -> Counter[str]:
    """Return the numbers of billed requests by their tier; no request is billed twice."""
    books = sandbox.books()
    assert not books.billed_bodies.keys() & books.sync_bodies.keys()
    assert set(books.billed_bodies.values()) | set(books.sync_bodies.values()) <= {1}
    return Counter({"batch": len(books.billed_bodies)} if books.billed_bodies else {}) + Counter(books.sync_tiers)


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"lane": "flex"}, {"flex": 12}),
        ({"lane": "sync"}, {"default": 12}),
        ({"preflight": True}, {"batch": 11, "flex": 1}),
    ],
)
def test_each_lane_gives_the_rows_of_a_batch(sandbox, fields, counts):
    """A second run, of any lane, finds the answers: the tier is not part of a request's identity."""
    outputs = generate(**fields)
    assert count_requests(sandbox) == counts
    assert generate() == outputs
    assert count_requests(sandbox) == counts


def test_the_rows_of_two_lanes_are_equal(sandbox, tmp_path):
    in_batch, by_flex = (
        generate(lane=lane, ledger_dir=str(tmp_path / lane), reuse_answers=False) for lane in ("batch", "flex")
    )
    assert by_flex == in_batch
    assert sandbox.books().sync_bodies == sandbox.books().billed_bodies


def test_capacity_is_waited_for(sandbox, caplog):
    """A third of the flex requests is refused, and each of them is answered by flex in the end."""
    sandbox.configure(flex_refusals=0.34)
    with caplog.at_level(logging.INFO):
        outputs = generate(lane="flex")
    assert count_requests(sandbox) == {"flex": 12}
    assert "refused for now, and sent again" in caplog.text
    assert "The flex tier answered 12 requests, at the price of a batch." in caplog.text
    assert "full price" not in caplog.text
    assert None not in [output["generations"][0] for output in outputs]


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"lane": "flex"}, {"batch": 12}),
        ({"sync_below": 13}, {"default": 12}),
    ],
)
def test_requests_without_capacity_go_the_way_that_the_user_allows(sandbox, monkeypatch, fields, counts):
    monkeypatch.setattr(sync_sender, "FLEX_WAIT_SECONDS", 0.05)
    sandbox.configure(flex_refusals=1.0)
    assert None not in [output["generations"][0] for output in generate(**fields)]
    assert count_requests(sandbox) == counts


def test_a_lane_ends_at_the_deadline(sandbox):
    """The rest is sent at full price, as the rest of a batch."""
    sandbox.configure(flex_refusals=1.0)
    assert None not in [output["generations"][0] for output in generate(lane="flex", deadline=0.2)]
    assert count_requests(sandbox) == {"default": 12}


def test_a_model_whose_flex_tier_is_refused_is_remembered(sandbox, caplog):
    """The requests go into a batch at the same price; a later run does not ask."""
    sandbox.configure(flex_models=[])
    with caplog.at_level(logging.INFO):
        assert None not in [output["generations"][0] for output in generate(lane="flex")]
    assert "gpt-5-mini has no flex tier at this server: Unsupported service_tier: flex" in caplog.text
    assert "go into a batch" in caplog.text
    assert count_requests(sandbox) == {"batch": 12}
    before = len(sandbox.calls("chat.completions"))
    assert before >= 1
    generate([[{"role": "user", "content": "Say another."}]], lane="flex")
    assert len(sandbox.calls("chat.completions")) == before


def test_a_gateway_that_ignores_the_tier_is_reported(sandbox, caplog):
    """Answers that are not flex are billed in full, so that the others go into a batch."""
    sandbox.configure(ignores_tiers=True)
    generate([[{"role": "user", "content": f"Say {i}."}] for i in range(60)], lane="flex")
    counts = count_requests(sandbox)
    assert counts["default"] + counts["batch"] == 60
    assert counts["default"] <= 32
    assert "The server answered a flex request of gpt-5-mini with the tier `default`" in caplog.text


def test_failures_are_those_of_a_batch(sandbox, tmp_path):
    """A failed row has the same reason, and the ledger lists the failure."""
    failures = [
        RequestFailure(contains="number 1.", status=400, message="Not this one.", code="invalid_prompt"),
        RequestFailure(contains="number 2.", status=500, message="Oops."),
        RequestFailure(contains="number 3.", status=500, message="Once.", times=1),
    ]
    reasons = []
    for lane in ("batch", "flex"):
        sandbox.reset()
        sandbox.configure(failures=failures)
        folder = tmp_path / lane
        outputs = generate(lane=lane, ledger_dir=str(folder), max_retries=0)
        assert [i for i, output in enumerate(outputs) if output["generations"][0] is None] == [1, 2]
        reader = LedgerReader(folder)
        reasons.append([(entry.status_code, entry.code, entry.message) for entry in reader.failures(reader.scopes())])
    assert reasons[0] == reasons[1]
    assert len(reasons[0]) == 2


def test_a_server_without_a_batch_api_needs_the_lane_sync(sandbox):
    """All routes of batches and files are missing, as at vLLM."""
    for call in ("files.create", "batches.create", "batches.list"):
        sandbox.add_fault(Fault(call=call, kind="status", status=404, body={"detail": "Not Found"}, times=-1))
    outputs = generate(lane="sync", model="llama-3", max_concurrency=3)
    assert None not in [output["generations"][0] for output in outputs]
    assert count_requests(sandbox) == {"default": 12}
    assert sandbox.books().most_sync_in_flight <= 3
    assert not sandbox.calls("files.create")


def test_embeddings_may_be_synchronous(sandbox):
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small", lane="sync")
    assert None not in load_as_new_process(embeddings).encode(["One.", "Two."])
    assert count_requests(sandbox) == {"default": 2}
    with pytest.raises(ValidationError, match="lane"):
        OpenAIBatchEmbeddings(model="text-embedding-3-small", lane="flex")


def test_an_interrupted_lane_goes_on(sandbox, monkeypatch):
    """The next run sends the requests without an answer only, whatever its lane."""
    sandbox.add_fault(Fault(call="chat.completions", kind="status", status=401, skip=5, times=-1))
    with pytest.raises(AuthenticationError):
        generate(lane="flex")
    sandbox.clear_faults()
    answered = sandbox.books().sync
    assert 5 <= answered < 12
    assert None not in [output["generations"][0] for output in generate()]
    assert count_requests(sandbox) == {"flex": answered, "batch": 12 - answered}
