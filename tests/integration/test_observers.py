"""Observers that a script adds to a client, against the sandbox."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import Observer, OpenAIBatchEmbeddings, OpenAIBatchLLM
from tests.support.environment import load_as_new_process

CHATS = [[{"role": "user", "content": f"Say number {number}."}] for number in range(4)]
POLLING = {"min_poll_interval": 0.02}


@pytest.fixture
def observers():
    """Return the observers that the factories of a test have created."""
    return []


@pytest.fixture
def make_counter(observers):
    """Return a factory of observers that count requests and answers."""

    class Counter(Observer):
        def __init__(self, scope):
            self.scope = scope
            self.requests = self.answers = self.reused = 0
            self.batch_ids = []
            self.has_finished = False
            observers.append(self)

        def on_requested(self, requests):
            self.requests += requests

        def on_answered(self, requests):
            self.answers += requests

        def on_reused(self, requests):
            self.reused += requests

        def on_job_created(self, batch, shard):
            self.batch_ids.append(batch.id)

        def on_finished(self):
            self.has_finished = True

    return Counter


def test_an_observer_receives_the_events_of_each_call_of_generate(sandbox, observers, make_counter, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/script.py"])
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **POLLING)
    llm.add_observer(make_counter)
    llm.load()
    llm.generate(CHATS)
    load_as_new_process(llm).generate(CHATS)

    first, second = observers
    assert (first.scope.label, first.has_finished, second.has_finished) == ("script.py", True, True)
    assert (first.requests, first.answers, first.reused) == (4, 4, 0)
    assert (second.requests, second.answers, second.reused) == (4, 4, 4)
    assert (first.batch_ids, second.batch_ids) == ([batch["id"] for batch in sandbox.books().batches], [])


def test_an_observer_may_be_added_after_load(sandbox, observers, make_counter):
    llm = load_as_new_process(OpenAIBatchLLM(model="gpt-4o-mini", **POLLING))
    llm.add_observer(make_counter)
    llm.generate(CHATS)
    assert [observer.answers for observer in observers] == [4]


def test_embeddings_report_to_an_observer(sandbox, observers, make_counter):
    embeddings = OpenAIBatchEmbeddings(model="text-embedding-3-small", **POLLING)
    embeddings.add_observer(make_counter)
    load_as_new_process(embeddings).encode(["one", "two"])
    assert [observer.answers for observer in observers] == [observers[0].requests]


def test_an_observer_that_always_raises_changes_no_answer(sandbox, observers, make_counter, caplog):
    class Broken(Observer):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                raise OSError(name)
            return super().__getattribute__(name)

    llm = OpenAIBatchLLM(model="gpt-4o-mini", **POLLING)
    llm.add_observer(lambda scope: Broken())
    llm.add_observer(make_counter)
    answers = load_as_new_process(llm).generate(CHATS)

    assert all(answer["generations"][0] for answer in answers)
    assert [observer.answers for observer in observers] == [4]
    assert caplog.text.count("Observer `Broken` raised") == 1
