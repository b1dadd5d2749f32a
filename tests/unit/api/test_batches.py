"""Parsing of batch objects."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.batches import Batch, BatchError, EndDetector, read_batch
from distilabel_openai_batch.api.usage import Usage

CHAT = "/v1/chat/completions"

BATCHES = {
    "the least": ({"id": "b", "status": "validating"}, Batch("b", "validating")),
    "everything": (
        {
            "id": "b",
            "object": "batch",
            "status": "completed",
            "endpoint": CHAT,
            "input_file_id": "file-in",
            "output_file_id": "file-out",
            "error_file_id": "file-err",
            "request_counts": {"total": 100, "completed": 95, "failed": 5},
            "errors": None,
            "metadata": {"key": "value"},
            "created_at": 1_700_000_000,
            "expires_at": 1_700_086_400,
            "usage": {"input_tokens": 1},
            "model": "gpt-6-luna-2026-09-22",
        },
        Batch(
            "b",
            "completed",
            CHAT,
            "file-in",
            "file-out",
            "file-err",
            95,
            5,
            100,
            (),
            {"key": "value"},
            1_700_000_000,
            1_700_086_400,
            usage=Usage(1, 0),
            model="gpt-6-luna-2026-09-22",
        ),
    ),
    "empty file ids (Azure)": (
        {"id": "b", "status": "completed", "input_file_id": "", "output_file_id": "", "error_file_id": ""},
        Batch("b", "completed"),
    ),
    "null file ids": (
        {"id": "b", "status": "completed", "input_file_id": None, "output_file_id": None, "error_file_id": None},
        Batch("b", "completed"),
    ),
    "upper-case status": ({"id": "b", "status": "COMPLETED"}, Batch("b", "completed")),
    "unknown status": ({"id": "b", "status": "scheduling"}, Batch("b", "scheduling")),
    "counts null": ({"id": "b", "status": "failed", "request_counts": None}, Batch("b", "failed")),
    "counts empty": ({"id": "b", "status": "failed", "request_counts": {}}, Batch("b", "failed")),
    "counts of nulls": (
        {"id": "b", "status": "failed", "request_counts": {"total": None, "completed": None, "failed": "?"}},
        Batch("b", "failed"),
    ),
    "some counts": (
        {"id": "b", "status": "expired", "request_counts": {"completed": 1}},
        Batch("b", "expired", completed=1),
    ),
    "metadata null": ({"id": "b", "status": "expired", "metadata": None}, Batch("b", "expired")),
    "metadata no object": ({"id": "b", "status": "expired", "metadata": "x"}, Batch("b", "expired")),
    "times no numbers": (
        {"id": "b", "status": "expired", "created_at": None, "expires_at": "tomorrow"},
        Batch("b", "expired"),
    ),
    "errors": (
        {
            "id": "b",
            "status": "failed",
            "errors": {
                "object": "list",
                "data": [
                    {"code": "invalid_url", "message": "Wrong.", "param": "url", "line": 2},
                    {"code": None, "message": None, "line": None},
                    "what?",
                ],
            },
        },
        Batch("b", "failed", errors=(BatchError("Wrong.", "invalid_url", 2, "url"), BatchError("no message"))),
    ),
    "errors as a list": (
        {"id": "b", "status": "failed", "errors": [{"message": "Wrong."}]},
        Batch("b", "failed", errors=(BatchError("Wrong."),)),
    ),
    "errors as text": (
        {"id": "b", "status": "failed", "errors": "what?"},
        Batch("b", "failed", errors=(BatchError("what?"),)),
    ),
    "errors without data": ({"id": "b", "status": "failed", "errors": {"data": None}}, Batch("b", "failed")),
}


@pytest.mark.parametrize(("fields", "batch"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_is_parsed_in_each_servers_format(fields, batch):
    """Only the id and the status are required."""
    assert read_batch(fields) == batch


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "b"},
        {"status": "completed"},
        {"id": None, "status": "completed"},
        {"id": "", "status": "completed"},
        {"id": 7, "status": "completed"},
        {"id": "b", "status": None},
        {"error": {"message": "No."}},
    ],
)
def test_an_object_without_id_or_status_is_an_error(fields):
    with pytest.raises(ValueError, match="not a batch"):
        read_batch(fields)


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ("validating", False),
        ("in_progress", False),
        ("finalizing", False),
        ("cancelling", False),
        ("scheduling", False),
        ("", False),
        ("completed", True),
        ("failed", True),
        ("expired", True),
        ("cancelled", True),
        ("canceled", True),
        ("CANCELLED", True),
        ("Expired", True),
    ],
)
def test_a_batch_has_ended_if_its_status_is_final(status, ended):
    """A batch with an unknown status is polled further."""
    assert read_batch({"id": "b", "status": status}).has_ended is ended


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BatchError("Wrong.", "invalid_url", 2), "invalid_url: Wrong. (line 2 of the input file)"),
        (BatchError("Wrong.", "invalid_url"), "invalid_url: Wrong."),
        (BatchError("Wrong.", None, 0), "Wrong. (line 0 of the input file)"),
        (BatchError("Wrong."), "Wrong."),
    ],
)
def test_a_validation_errors_text_has_code_message_and_line(error, text):
    assert str(error) == text


@pytest.mark.parametrize(
    ("status", "is_cancelled"),
    [("cancelling", True), ("cancelled", True), ("canceled", True), ("completed", False), ("in_progress", False)],
)
def test_a_batch_counts_as_cancelled_from_the_request_on(status, is_cancelled):
    assert Batch("b", status).is_cancelled is is_cancelled


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "the server gave no reason"), (1, "0"), (3, "0; 1; 2"), (5, "0; 1; 2 (and 2 more)")],
)
def test_the_first_three_errors_are_the_reasons(count, text):
    errors = tuple(BatchError(str(number)) for number in range(count))
    assert Batch("b", "failed", errors=errors).reasons == text


def test_equal_errors_are_shown_once_with_their_number():
    """A rejected batch has an error for each line, up to 100."""
    lines = [BatchError("No.", "model_not_found", line) for line in range(1, 98)]
    others = [BatchError("Twice.") for _ in range(2)] + [BatchError(str(number)) for number in range(4)]
    reasons = Batch("b", "failed", errors=(*lines, *others)).reasons
    assert reasons == (
        "model_not_found: No. (97 times, the first in line 1 of the input file); Twice. (2 times); 0 (and 3 more)"
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("succeeded", "completed"),
        ("SUCCESS", "completed"),
        ("Done", "completed"),
        ("finished", "completed"),
        ("error", "failed"),
        ("timed-out", "expired"),
        ("canceled", "cancelled"),
        ("In Progress", "in_progress"),
        ("pre_schedule", "pre_schedule"),
    ],
)
def test_other_servers_words_for_a_status_are_read(word, status):
    assert read_batch({"id": "b", "status": word}).status == status


FULL = {"total": 3, "completed": 2, "failed": 1}
ENDS = {
    "a final time": ({"completed_at": 30}, "completed"),
    "a final time as text": ({"failed_at": "2026-11-26T10:00:00Z"}, "failed"),
    "the end of an expired batch": ({"expired_at": 30}, "expired"),
    "an output file and all outcomes": ({"output_file_id": "file-out", "request_counts": FULL}, "completed"),
    "an error file and all outcomes": ({"error_file_id": "file-err", "request_counts": FULL}, "completed"),
    "no sign": ({}, None),
    "a zero time": ({"completed_at": "0001-01-01T00:00:00Z"}, None),
    "a file without counts": ({"output_file_id": "file-out"}, None),
    "all outcomes without a file": ({"request_counts": FULL}, None),
    "a growing file": ({"output_file_id": "file-out", "request_counts": FULL | {"completed": 1}}, None),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_batch_with_an_unknown_status_shows_its_end_otherwise(case):
    """Five equal polls are certain; before that the status stays as it is."""
    fields, end = ENDS[case]
    batch = read_batch({"id": "b", "status": "sealed", **fields})
    assert batch.apparent_end == end
    detector = EndDetector()
    assert [detector.judge(batch).status for _ in range(5)] == ["sealed"] * 4 + [end or "sealed"]


def test_a_poll_with_a_change_restarts_the_detection_of_the_end():
    batch = read_batch({"id": "b", "status": "sealed", "completed_at": 30})
    other = read_batch({"id": "b", "status": "sealed", "completed_at": 30, "output_file_id": "file-out"})
    detector = EndDetector()
    assert not any(detector.judge(poll).has_ended for poll in [batch] * 4 + [other] * 4)
    assert detector.judge(other).status == "completed"


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_status_of_openai_is_believed(status):
    batch = read_batch({"id": "b", "status": status, "completed_at": 30})
    detector = EndDetector()
    assert {detector.judge(batch).status for _ in range(9)} == {status}


@pytest.mark.parametrize("name", ["completed_at", "failed_at", "expired_at", "cancelled_at"])
def test_the_time_of_the_final_status_is_the_end(name):
    fields = {"id": "b", "status": "x", "completed_at": None, "failed_at": None, name: 30}
    times = {"in_progress_at": 10, "finalizing_at": 20, "cancelling_at": 25}
    batch = read_batch(fields | times)
    assert batch.finished_at == 30
    assert (batch.in_progress_at, batch.finalizing_at, batch.cancelling_at) == (10, 20, 25)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2024-01-15T14:30:00Z", 1_705_329_000.0),
        ("2024-01-15T15:30:00+01:00", 1_705_329_000.0),
        ("2024-01-15T14:30:00.123456789Z", 1_705_329_000.123456),
        ("2024-01-15 14:30:00", 1_705_329_000.0),
        ("1705329000", 1_705_329_000.0),
        ("1705329000000", None),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_moments_may_be_texts(value, seconds):
    assert read_batch({"id": "b", "status": "completed", "created_at": value}).created_at == seconds
