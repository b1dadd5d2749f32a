"""Traits of models that refusals show."""

from __future__ import annotations

import orjson
import pytest
from msgspec.structs import replace

from distilabel_openai_batch.api.model_traits import ROOM_FOR_REASONING
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.learned_traits import LearnedTraits
from distilabel_openai_batch.engine.observer import Observer

CHAT = "/v1/chat/completions"
REFUSAL = Failure(
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    400,
    "unsupported_parameter",
)
OPPOSITE = Failure("Unrecognized request argument supplied: max_completion_tokens", 400)


class Recorder(Observer):
    """Observer that records refused parameters."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []

    def on_parameter_refused(self, model: str, parameter: str) -> None:
        self.refused.append((model, parameter))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def traits(ledger, bodies, recorder) -> LearnedTraits:
    return LearnedTraits(ledger.refused_parameters, bodies, recorder)


def make_request(model="alias", endpoint=CHAT, *, has_default_limit=True, **body) -> Request:
    encoded = orjson.dumps({"model": model, "max_tokens": 128, "temperature": 1.0} | body)
    return Request("id-0", endpoint, model, encoded, has_default_limit)


def body_of(request: Request | None) -> dict:
    assert request is not None
    return orjson.loads(bytes(request.body))


@pytest.mark.parametrize(("has_default_limit", "limit"), [(True, ROOM_FOR_REASONING), (False, 128)])
def test_refused_limit_gets_its_other_name(traits, recorder, has_default_limit, limit):
    """A default limit also leaves room for reasoning, since only models that reason refuse `max_tokens`."""
    request = make_request(has_default_limit=has_default_limit)

    revised = traits.revise(request, REFUSAL)

    assert body_of(revised) == {"model": "alias", "max_completion_tokens": limit}
    assert revised.custom_id == request.custom_id
    assert recorder.refused == [("alias", "max_tokens")]


def test_each_refusal_is_reported_once(traits, recorder):
    assert traits.revise(make_request(), REFUSAL)
    assert traits.revise(make_request(), REFUSAL)
    assert recorder.refused == [("alias", "max_tokens")]


def test_failures_of_earlier_runs_teach_before_a_submission(traits, recorder, ledger):
    refused, new, other = make_request(), make_request(), make_request(model="other")
    new, other = replace(new, custom_id="id-1"), replace(other, custom_id="id-2")

    revised = traits.revise_known([refused, new, other], {"id-0": REFUSAL})

    assert ["max_completion_tokens" in body_of(request) for request in revised] == [True, True, False]
    assert recorder.refused == [("alias", "max_tokens")]
    assert ledger.refused_parameters.load() == [("alias", "max_tokens")]


def test_other_failures_of_earlier_runs_change_no_request(traits, recorder):
    requests = [make_request()]
    assert traits.revise_known(requests, {"id-0": Failure("Bad.", 400)}) is requests
    assert traits.revise_known(requests, {}) is requests
    assert recorder.refused == []


def test_run_that_submits_nothing_records_the_refusal_for_later_runs(traits, ledger, bodies, recorder):
    """The run reports nothing: the report says that requests are submitted again."""
    assert traits.learn(make_request(), REFUSAL) is None
    assert recorder.refused == []
    later = LearnedTraits(ledger.refused_parameters, bodies, recorder)
    assert "max_completion_tokens" in body_of(later.fit(make_request()))


def test_request_that_is_refused_under_both_names_fails(traits):
    revised = traits.revise(make_request(), REFUSAL)

    assert traits.revise(revised, OPPOSITE) is None


@pytest.mark.parametrize(("has_default_limit", "limit"), [(True, ROOM_FOR_REASONING), (False, 128)])
def test_refused_default_of_a_response_is_left_out(traits, recorder, has_default_limit, limit):
    request = make_request(
        endpoint="/v1/responses", has_default_limit=has_default_limit, max_output_tokens=128, max_tokens=128, top_p=1.0
    )

    body = body_of(traits.revise(request, Failure("Unsupported parameter: 'top_p' is not supported.", 400)))

    assert body == {"model": "alias", "max_tokens": 128, "max_output_tokens": limit}
    assert recorder.refused == [("alias", "top_p")]
    assert traits.revise(request, REFUSAL) is None


ONLY_RESPONSES = Failure("This model is only supported in v1/responses and not in v1/chat/completions.", 404)


def test_refused_chat_goes_to_the_responses_api(ledger, bodies, recorder):
    """Azure's path may have no version in front."""
    traits = LearnedTraits(ledger.refused_parameters, bodies, recorder, "/responses")
    messages = [{"role": "user", "content": "Hello"}]

    revised = traits.revise(make_request(messages=messages, n=1), ONLY_RESPONSES)

    assert (revised.endpoint, revised.custom_id) == ("/responses", "id-0")
    assert body_of(revised) == {
        "model": "alias",
        "input": messages,
        "max_output_tokens": ROOM_FOR_REASONING,
        "store": False,
    }
    assert traits.fit(revised) is revised
    assert recorder.refused == [("alias", "messages")]


def test_refused_chat_that_the_responses_api_cannot_express_fails(traits, recorder):
    assert traits.revise(make_request(messages=[], n=2), ONLY_RESPONSES) is None
    assert recorder.refused == []


@pytest.mark.parametrize(
    ("request_", "failure"),
    [
        (make_request(), Failure("No such model.", 404)),
        (make_request(), Failure(REFUSAL.message, 500)),
        (make_request(endpoint="/v1/completions"), REFUSAL),
    ],
    ids=["other failure", "other status", "other endpoint"],
)
def test_other_failures_teach_nothing(traits, request_, failure):
    assert traits.revise(request_, failure) is None
    assert traits.refused == {}


def test_later_requests_of_the_model_get_the_parameters_at_once(traits):
    traits.revise(make_request(), REFUSAL)
    other = make_request(model="gpt-4o")

    assert body_of(traits.fit(make_request())) == {"model": "alias", "max_completion_tokens": ROOM_FOR_REASONING}
    assert traits.fit(other) is other


def test_body_that_needs_no_change_is_returned_as_it_is(traits):
    traits.revise(make_request(), REFUSAL)
    fitted = traits.fit(make_request())

    assert traits.fit(fitted) is fitted


def test_next_run_knows_the_refusals(traits, ledger, bodies, recorder):
    traits.revise(make_request(), REFUSAL)

    again = LearnedTraits(ledger.refused_parameters, bodies, recorder)

    assert again.refused == {"alias": {"max_tokens"}}
