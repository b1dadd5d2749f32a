"""Tests of `display.event_log`."""

from __future__ import annotations

import logging

from distilabel_openai_batch.display.event_log import EventLog


def test_a_record_has_its_event_its_scope_and_its_facts(caplog):
    caplog.set_level(logging.INFO)
    log = EventLog(logging.getLogger("test.event_log"), "preferences/generate")
    log.info("job_created", "Submitted.", batch_id="batch_1")
    log.warning("cut", "Two were cut.", answers=2)
    first, second = caplog.records
    assert (first.levelname, first.getMessage(), first.event, first.batch_id) == (
        *("INFO", "Submitted.", "job_created", "batch_1"),
    )
    assert (second.levelname, second.event, second.answers) == ("WARNING", "cut", 2)
    assert {record.scope for record in caplog.records} == {"preferences/generate"}
    assert first.funcName == "test_a_record_has_its_event_its_scope_and_its_facts"
