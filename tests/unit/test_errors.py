"""Transient and lasting failures, and exceptions that survive pickling."""

from __future__ import annotations

import pickle

import dill
import pytest

import distilabel_openai_batch
from distilabel_openai_batch import errors
from tests.support.hostile import HOSTILE, is_harmless

RUN_ERRORS = [
    errors.RunError,
    errors.AuthenticationError,
    errors.QuotaError,
    errors.StorageFullError,
    errors.ConnectionFailedError,
    errors.BatchFailedError,
    errors.MissingSettingError,
    errors.InvalidParametersError,
    errors.InvalidSettingError,
    errors.RequestsFailedError,
    errors.InternalError,
]


@pytest.mark.parametrize("status_code", [0, 408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
@pytest.mark.parametrize("code", [None, "rate_limit_exceeded"])
def test_timeouts_conflicts_rate_limits_and_server_errors_are_transient(status_code, code):
    assert errors.is_transient(status_code, code)


@pytest.mark.parametrize(
    "code",
    [
        "batch_expired",
        "batch_cancelled",
        "batch_failed",
        "inference_failed",
        "malformed_result",
        "missing_result",
        "request_timeout",
    ],
)
@pytest.mark.parametrize("status_code", [None, 200, 400])
def test_an_unreached_request_or_lost_result_is_transient(status_code, code):
    """The code decides, whatever the status code is."""
    assert errors.is_transient(status_code, code)


@pytest.mark.parametrize(("status_code", "is_transient"), [(None, True), (200, True), (404, False), (400, False)])
@pytest.mark.parametrize("code", ["internal_error", "internal_server_error", "server_error", "request_failed"])
def test_a_server_error_is_transient_without_a_contrary_status_code(status_code, is_transient, code):
    """A refusal may have the type `server_error`."""
    assert errors.is_transient(status_code, code) is is_transient


@pytest.mark.parametrize(
    ("code", "message", "is_failure"),
    [
        ("server_error", "", True),
        ("internal_error", "Try again.", True),
        (None, "The server had an error while processing your request.", True),
        (None, "Internal Server Error", True),
        (None, "internal error", True),
        ("invalid_json_line", "A line has the text internal error.", False),
        ("model_not_found", "", False),
        (None, "This line is not parseable as valid JSON.", False),
    ],
)
def test_the_reason_of_a_failed_batch_is_a_failure_of_the_server_or_a_fault_of_the_file(code, message, is_failure):
    assert errors.is_server_failure(code, message) is is_failure


TRANSIENT_REFUSALS = {
    "image, invalid_image_url": ("invalid_image_url", "Timeout while downloading https://example.com/a.jpg."),
    "image, invalid_value": ("invalid_value", "Timeout while downloading https://example.com/a.jpg"),
    "image, DashScope": (
        "InvalidParameter.DataInspection",
        "Download the media resource timed out during the data inspection process.",
    ),
    "image, DashScope's compatible mode": (
        "invalid_parameter_error",
        "<400> InternalError.Algo.InvalidParameter: Download multimodal file timed out",
    ),
    "body": (
        None,
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library"
        " correctly.)",
    ),
    "answer that is no JSON, Groq": ("json_validate_failed", "Failed to generate JSON. Please adjust your prompt."),
}


@pytest.mark.parametrize(("code", "message"), TRANSIENT_REFUSALS.values(), ids=TRANSIENT_REFUSALS.keys())
def test_a_refusal_that_was_reported_to_pass_is_transient(code, message):
    """Only with status 400, because other statuses have their own meaning."""
    assert errors.is_transient(400, code, message)
    assert not errors.is_transient(400, code)
    assert not errors.is_transient(404, code, message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_image_url", "Invalid image URL."),
        ("invalid_image", "Failed to download image from a.gif. Image size exceeds the limit."),
        ("invalid_value", "Error while downloading https://example.com/a.jpg."),
        (None, "Invalid JSON schema."),
    ],
)
def test_a_refusal_that_does_not_pass_is_not_transient(code, message):
    assert not errors.is_transient(400, code, message)


@pytest.mark.parametrize("status_code", [None, 200, 400, 401, 403, 404, 413, 422, 499])
@pytest.mark.parametrize("code", [None, "", "invalid_request_error", "context_length_exceeded"])
def test_an_invalid_request_is_not_transient(status_code, code):
    assert not errors.is_transient(status_code, code)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
@pytest.mark.parametrize("status_code", [None, 400, 403, 429, 500])
def test_an_exhausted_account_is_not_transient(status_code, code):
    """Waiting does not fix such a 429."""
    assert errors.is_out_of_quota(code)
    assert not errors.is_transient(status_code, code)


def test_a_rate_limit_is_not_an_exhausted_account():
    assert not errors.is_out_of_quota("rate_limit_exceeded")
    assert not errors.is_out_of_quota(None)


STORAGE_FULL = {
    "OpenAI, organization": (
        400,
        "invalid_request_error",
        "You have exceeded your file storage quota. Organizations are limited to 100 GB of files. Please reduce the"
        " file size or contact support.",
    ),
    "OpenAI, project": (
        400,
        None,
        "You have exceeded your file storage quota. Projects are limited to 2.5 TB of files.",
    ),
    "Azure": (400, "quotaExceeded", "The quota for files without expiry is reached. The maximum is 500."),
    "Azure, behind LiteLLM": (
        400,
        "400",
        "Error code: 400 - {'error': {'code': 'quotaExceeded', 'message': 'The quota for files without expiry is"
        " reached. The maximum is 500.'}}",
    ),
    "Azure, other words": (400, "quotaExceeded", "The resource holds too much."),
    "Gemini, bytes": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota. * Quota exceeded for metric: generativelanguage.googleapis.com/"
        "file_storage_bytes, limit: 21474836480",
    ),
    "Gemini, number": (400, None, "Total file count is 10151, exceeding limit of 10000."),
    "a server's own disk": (500, None, "[Errno 28] No space left on device: '/data/files/file-1'"),
    "insufficient storage": (507, None, "<html>Insufficient Storage</html>"),
}


@pytest.mark.parametrize(("status_code", "code", "message"), STORAGE_FULL.values(), ids=STORAGE_FULL.keys())
def test_a_full_file_storage_is_recognised(status_code, code, message):
    assert errors.is_storage_full(status_code, code, message)
    assert not errors.is_storage_full(status_code, "insufficient_quota", message)


@pytest.mark.parametrize(
    ("status_code", "code", "message"),
    [
        (400, None, "File is too large."),
        (413, "server_error", "Maximum content size limit (536870912) exceeded (600000000 bytes read)"),
        (400, None, "Invalid file format for Batch API. Must be .jsonl"),
        (429, "rate_limit_exceeded", "Rate limit reached for uploads. Limit: 1000 files per minute."),
        (403, "quotaExceeded", "Out of call volume quota. Quota will be replenished in 5 days."),
        (429, "insufficient_quota", "You exceeded your current quota, please check your plan and billing details."),
        (503, None, "The storage service is unavailable."),
    ],
)
def test_another_refusal_of_an_upload_is_no_full_file_storage(status_code, code, message):
    assert not errors.is_storage_full(status_code, code, message)


@pytest.mark.parametrize(
    ("status_code", "is_rejected"), [(401, True), (403, True), (400, False), (404, False), (429, False), (None, False)]
)
def test_401_and_403_reject_the_key(status_code, is_rejected):
    assert errors.is_key_rejected(status_code) is is_rejected


@pytest.mark.parametrize("error", RUN_ERRORS)
def test_each_error_of_a_run_is_a_run_error(error):
    """`except RunError` catches each error that stops a run; the module's docstring lists them."""
    assert issubclass(error, errors.RunError)
    assert issubclass(error, errors.OpenAIBatchError)
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", [errors.OpenAIBatchError, *RUN_ERRORS])
def test_the_errors_can_be_imported_from_the_package(error):
    assert getattr(distilabel_openai_batch, error.__name__) is error
    assert error.__name__ in distilabel_openai_batch.__all__


def test_no_error_of_a_run_is_a_subclass_of_another():
    """`except` for one kind does not catch another kind."""
    for error in RUN_ERRORS[1:]:
        assert error.__bases__[0] is errors.RunError


@pytest.mark.parametrize("module", [pickle, dill], ids=["pickle", "dill"])
@pytest.mark.parametrize("kind", RUN_ERRORS)
def test_a_pickled_error_keeps_its_text_and_attributes(kind, module):
    """A step's process sends its error to the pipeline's process."""
    error = kind("No money.", status_code=429, code="insufficient_quota", batch_id="batch_1")
    copy = module.loads(module.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "No money."
    assert (copy.status_code, copy.code, copy.batch_id) == (429, "insufficient_quota", "batch_1")


@pytest.mark.parametrize("module", [pickle, dill], ids=["pickle", "dill"])
@pytest.mark.parametrize("kind", [errors.OpenAIBatchError, *RUN_ERRORS])
def test_an_error_can_be_created_from_its_text_alone(kind, module):
    copy = module.loads(module.dumps(kind("No.")))
    assert type(copy) is kind
    assert copy.args == ("No.",)


class Group(Exception):
    """Group of exceptions, which Python 3.10 lacks."""

    def __init__(self, *exceptions: Exception) -> None:
        self.exceptions = exceptions


def test_a_run_error_stays_unchanged_also_inside_groups():
    error = errors.QuotaError("No money.")
    assert errors.as_run_error(error) is error
    assert errors.as_run_error(Group(ValueError("first"), Group(error))) is error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError: no message."),
        (RuntimeError("can't start new thread"), "RuntimeError: can't start new thread."),
        (OSError(28, "No space left on device", "/tmp/bodies"), "could not be written or read: [Errno 28] No space"),
        (Group(Group(OverflowError("too large"))), "OverflowError: too large."),
    ],
)
def test_any_other_exception_becomes_an_internal_error_with_its_cause_and_advice(error, text):
    internal = errors.as_run_error(error)
    assert type(internal) is errors.InternalError
    assert text in str(internal)
    assert str(internal).endswith("are in the ledger, and jobs stay at the server: run again to continue.")
    assert internal.__cause__ is not None
    assert not isinstance(internal.__cause__, Group)


@pytest.mark.parametrize("kind", [errors.OpenAIBatchError, *RUN_ERRORS])
def test_the_text_of_an_error_has_no_control_characters(kind):
    """distilabel logs the error, and Python prints the error, with the server's message in it."""
    error = kind(f"The server refused: {HOSTILE}")
    assert is_harmless(str(error))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert is_harmless(str(errors.as_run_error(ValueError(HOSTILE))))
