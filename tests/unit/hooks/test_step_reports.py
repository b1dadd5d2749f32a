"""Tests of `hooks.step_reports`."""

from __future__ import annotations

import logging
import pickle
import types
from pathlib import Path
from queue import SimpleQueue

from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.hooks import step_reports
from distilabel_openai_batch.hooks.dataset_card import FollowedSession
from distilabel_openai_batch.hooks.step_reports import StepReport, StepReporter, follow_session, reporting
from distilabel_openai_batch.ledger.states import ScopeName

STEP = types.SimpleNamespace(name="generate", artifacts_directory=None)


def session(requests: int) -> FollowedSession:
    progress = Progress(logging.getLogger("test.step_reports"))
    progress.on_requested(requests)
    return FollowedSession(progress, ScopeName("preferences", "generate", ""), Path("/nowhere"))


def wrapper(queue) -> types.SimpleNamespace:
    return types.SimpleNamespace(step=STEP, output_queue=queue)


def messages(queue) -> list[StepReport]:
    found = []
    while not queue.empty():
        found.append(queue.get())
    return found


def test_a_step_reports_the_sum_of_its_sessions_at_its_end(monkeypatch):
    monkeypatch.setattr(step_reports, "_REPORT_SECONDS", 600.0)
    queue = SimpleQueue()
    with reporting(wrapper(queue)):
        follow_session(session(2))
        follow_session(session(3))
    follow_session(session(4))
    [report] = messages(queue)
    assert (report.step_name, report.counts.requests, report.seq_no) == ("generate", 5, 0)
    assert pickle.loads(pickle.dumps(report)) == report


def test_a_step_without_a_session_reports_nothing():
    queue = SimpleQueue()
    with reporting(wrapper(queue)):
        pass
    assert messages(queue) == []


def test_numbers_are_sent_while_the_step_runs(monkeypatch):
    monkeypatch.setattr(step_reports, "_REPORT_SECONDS", 0.001)
    queue = SimpleQueue()
    with reporting(wrapper(queue)):
        follow_session(session(2))
        assert queue.get(timeout=60).counts.requests == 2


def test_unchanged_numbers_are_sent_once():
    queue = SimpleQueue()
    reporter = StepReporter(STEP, queue)
    reporter._ended.set()
    followed = session(2)
    reporter.follow(followed)
    reporter.send()
    reporter.send()
    assert len(messages(queue)) == 1
    followed.progress.on_answered(1)
    reporter.send()
    assert [report.counts.answered for report in messages(queue)] == [1]


def test_numbers_that_change_while_they_are_read_are_sent_by_the_next_report(monkeypatch):
    queue = SimpleQueue()
    reporter = StepReporter(STEP, queue)
    followed = session(2)
    reporter._sessions.append(followed)

    def fail(self):
        raise RuntimeError("dictionary changed size during iteration")

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "counts", fail)
        reporter.send()
    assert messages(queue) == []
    reporter.send()
    assert [report.counts.requests for report in messages(queue)] == [2]


def test_a_queue_whose_process_is_gone_ends_the_reports():
    class GoneQueue:
        puts = 0

        def put(self, message):
            self.puts += 1
            raise BrokenPipeError

    queue = GoneQueue()
    with reporting(wrapper(queue)):
        follow_session(session(2))
        step_reports._reporter.send()
    assert queue.puts == 1


def test_an_artifact_that_cannot_be_stored_ends_no_step(monkeypatch):
    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(step_reports, "save_origin", fail)
    queue = SimpleQueue()
    with reporting(wrapper(queue)):
        follow_session(session(2))
    assert len(messages(queue)) == 1
