"""Whose fault an error is, and that an error arrives whole where it is read."""

from __future__ import annotations

import pickle

import dill
import pytest

import distilabel_openai_batch
from distilabel_openai_batch import errors

RUN_ERRORS = [
    errors.RunError,
    errors.AuthenticationError,
    errors.QuotaError,
    errors.ConnectionFailedError,
    errors.BatchFailedError,
    errors.MissingSettingError,
    errors.InvalidParametersError,
    errors.RequestsFailedError,
]


@pytest.mark.parametrize("status_code", [0, 408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
@pytest.mark.parametrize("code", [None, "rate_limit_exceeded"])
def test_time_outs_conflicts_rate_limits_and_server_errors_pass(status_code, code):
    """What is nobody's fault for long is asked again."""
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
def test_a_request_that_was_not_reached_or_whose_result_was_lost_passes(status_code, code):
    """The code decides where the status code says nothing, or something else."""
    assert errors.is_transient(status_code, code)


@pytest.mark.parametrize(("status_code", "passes"), [(None, True), (200, True), (404, False), (400, False)])
@pytest.mark.parametrize("code", ["server_error", "request_failed"])
def test_a_servers_error_passes_unless_the_status_code_says_otherwise(status_code, passes, code):
    """As the type of a refusal it says nothing."""
    assert errors.is_transient(status_code, code) is passes


@pytest.mark.parametrize("status_code", [None, 200, 400, 401, 403, 404, 413, 422, 499])
@pytest.mark.parametrize("code", [None, "", "invalid_request_error", "context_length_exceeded"])
def test_a_fault_of_the_request_does_not_pass(status_code, code):
    """Asking the same again would cost the same again."""
    assert not errors.is_transient(status_code, code)


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
@pytest.mark.parametrize("status_code", [None, 400, 403, 429, 500])
def test_an_empty_account_does_not_pass(status_code, code):
    """A 429 that no waiting mends is not waited for."""
    assert errors.is_out_of_quota(code)
    assert not errors.is_transient(status_code, code)


def test_a_rate_limit_is_not_an_empty_account():
    """Only the account's own codes end a run."""
    assert not errors.is_out_of_quota("rate_limit_exceeded")
    assert not errors.is_out_of_quota(None)


@pytest.mark.parametrize(
    ("status_code", "refused"), [(401, True), (403, True), (400, False), (404, False), (429, False), (None, False)]
)
def test_the_key_is_refused_by_401_and_403(status_code, refused):
    """The two ways to say that this key may not."""
    assert errors.is_key_rejected(status_code) is refused


@pytest.mark.parametrize("error", RUN_ERRORS)
def test_every_error_of_the_run_is_a_run_error(error):
    """`except RunError` catches whatever stops a run, and `except OpenAIBatchError` all of ours."""
    assert issubclass(error, errors.RunError)
    assert issubclass(error, errors.OpenAIBatchError)
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", [errors.OpenAIBatchError, *RUN_ERRORS])
def test_the_errors_can_be_imported_from_the_package(error):
    """A user catches them without knowing our modules."""
    assert getattr(distilabel_openai_batch, error.__name__) is error
    assert error.__name__ in distilabel_openai_batch.__all__


def test_the_errors_of_the_run_are_siblings():
    """Catching one kind does not catch another by accident."""
    for error in RUN_ERRORS[1:]:
        assert error.__bases__[0] is errors.RunError


@pytest.mark.parametrize("module", [pickle, dill], ids=["pickle", "dill"])
@pytest.mark.parametrize("kind", RUN_ERRORS)
def test_an_error_survives_the_way_between_processes(kind, module):
    """What a step's process raises, the pipeline's process reads with text and attributes."""
    error = kind("No money.", status_code=429, code="insufficient_quota", batch_id="batch_1")
    copy = module.loads(module.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "No money."
    assert (copy.status_code, copy.code, copy.batch_id) == (429, "insufficient_quota", "batch_1")


@pytest.mark.parametrize("module", [pickle, dill], ids=["pickle", "dill"])
@pytest.mark.parametrize("kind", [errors.OpenAIBatchError, *RUN_ERRORS])
def test_an_error_of_text_alone_survives_too(kind, module):
    """Nothing but the text is needed to make one."""
    copy = module.loads(module.dumps(kind("No.")))
    assert type(copy) is kind
    assert copy.args == ("No.",)
