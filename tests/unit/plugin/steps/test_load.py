"""`LoadBatchResults` without a server: selection of a submission, and reasons as text."""

from __future__ import annotations

import pytest
from distilabel.errors import DistilabelUserError
from distilabel.steps.tasks import TextGeneration
from pydantic import ValidationError

from distilabel_openai_batch import LoadBatchResults, OpenAIBatchLLM
from distilabel_openai_batch.api.outcomes import OTHER_BATCH
from distilabel_openai_batch.display.brief_errors import is_brief
from distilabel_openai_batch.engine.settings import SubmissionRun
from tests.unit.plugin.stubs import CONNECTION

REASON = {"message": "No.", "status_code": 400, "code": "bad", "custom_id": "1-0"}


def load(add_failures: bool = False, **fields) -> LoadBatchResults:
    task = TextGeneration(name="task", llm=OpenAIBatchLLM(**CONNECTION, add_failures=add_failures))
    return LoadBatchResults(name="load", task=task, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"run_name": "numbers", "batch_ids": ["batch_1"]}, "not both"), ({"batch_ids": []}, "`batch_ids` is empty")],
)
def test_contradicting_selection_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        load(**fields)


def test_missing_selection_is_an_error():
    """A runtime parameter may still name the submission, so the error comes when the name is needed."""
    with pytest.raises(DistilabelUserError, match="'load' has neither `run_name` nor `batch_ids`") as raised:
        load().outputs  # noqa: B018
    assert is_brief(raised.value)


@pytest.mark.parametrize("resubmit", [True, False])
def test_submission_waits_and_buys_on_request_only(resubmit):
    submission = load(run_name="numbers", resubmit=resubmit)._submission()

    assert submission == SubmissionRun("numbers", waits=True, submits=resubmit)


@pytest.mark.parametrize("add_failures", [True, False])
def test_reasons_become_text(add_failures):
    """The column of `add_failures`, if requested, keeps the dictionary; rows of other batches are dropped."""
    step = load(add_failures, run_name="numbers")
    rows = [
        {"id": 0, "batch_failure": None},
        {"id": 1, "batch_failure": REASON},
        {"id": 2, "batch_failure": REASON | {"code": OTHER_BATCH.code}},
    ]

    assert step._format_reasons(rows) == [
        {"id": 0, "batch_failure": None} | ({"failure_task": None} if add_failures else {}),
        {"id": 1, "batch_failure": "No. (400, bad)"} | ({"failure_task": REASON} if add_failures else {}),
    ]
