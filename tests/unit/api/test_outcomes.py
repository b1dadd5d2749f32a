"""Parsing of result lines into answers and failures."""

from __future__ import annotations

import json

import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.failure_codes import MALFORMED_RESULT, MISSING_RESULT_CODE
from distilabel_openai_batch.api.outcomes import (
    Answer,
    Failure,
    batch_failure,
    build_result_line,
    find_failure,
    is_billed,
    parse_result_line,
    read_answer,
    usage_of,
)
from distilabel_openai_batch.api.usage import Usage
from tests.support.result_lines import COMPLETION, api_error, line, response

ANSWERED = {
    "as documented": line("a", response(COMPLETION)),
    "body as a JSON string": line("a", response(json.dumps(COMPLETION))),
    "no status code": line("a", {"body": COMPLETION}),
    "201": line("a", response(COMPLETION, 201)),
    "empty error": line("a", response(COMPLETION), error={}),
    "error in the body, but null": line("a", response({**COMPLETION, "error": None})),
    "no line feed": line("a", response(COMPLETION)).rstrip(),
    "carriage return": line("a", response(COMPLETION)).rstrip() + b"\r\n",
    "spaces around": b"  " + line("a", response(COMPLETION)).rstrip() + b"  \n",
    "no id and no error": json.dumps({"custom_id": "a", "response": {"body": COMPLETION}}).encode(),
    "more fields": json.dumps({"custom_id": "a", "response": response(COMPLETION), "new": [1]}).encode(),
}


def completion(*choices: dict) -> dict:
    return {**COMPLETION, "choices": list(choices), "usage": {"prompt_tokens": 3, "completion_tokens": 8}}


SPENT = {"finish_reason": "length", "message": {"role": "assistant", "content": ""}}
CUT = {"finish_reason": "length", "message": {"role": "assistant", "content": "Once"}}
USABLE = {
    "a cut text": completion(CUT),
    "one cut text": completion(SPENT, CUT),
    "a text that the model left empty": completion({"finish_reason": "stop", "message": {"content": ""}}),
    "a refusal": completion({"finish_reason": "length", "message": {"content": None, "refusal": "No"}}),
    "a cut tool call": completion({"finish_reason": "length", "message": {"content": None, "tool_calls": [{}]}}),
    "a cut legacy text": completion({"finish_reason": "length", "text": "Once"}),
    "choices that are no objects": completion(None),
    "no field of choices": {"object": "list", "data": []},
}
UNUSABLE = {
    "a spent limit": (completion(SPENT), "length"),
    "spent limits": (completion(SPENT, SPENT), "length"),
    "no content": (completion({"finish_reason": "length", "message": {"content": None}}), "length"),
    "no message": (completion({"finish_reason": "length"}), "length"),
    "an empty legacy text": (completion({"finish_reason": "length", "text": ""}), "length"),
    "no choices": (completion(), "missing_choice"),
    "null choices": ({**completion(), "choices": None}, "missing_choice"),
}


@pytest.mark.parametrize("body", USABLE.values(), ids=USABLE.keys())
def test_answer_with_a_usable_choice_is_an_answer(body):
    assert parse_result_line(line("a", response(body))) == ("a", Answer.of(body))
    assert read_answer(body) == Answer.of(body)


@pytest.mark.parametrize(("body", "code"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_answer_without_a_usable_choice_is_a_billed_failure(body, code):
    _, failure = parse_result_line(line("a", response(body)))

    assert isinstance(failure, Failure)
    assert (failure.status_code, failure.code, failure.tokens) == (200, code, (3, 8))
    assert failure.is_billed
    assert is_billed(failure)
    assert read_answer(body) == failure


def test_failure_of_the_api_is_not_billed():
    """A code of the API may be equal to a `finish_reason`."""
    assert not Failure("Too long.", 400, "length").is_billed
    assert not Failure("Oops.", 500).is_billed


@pytest.mark.parametrize("text", ANSWERED.values(), ids=ANSWERED.keys())
def test_an_answer_is_parsed_in_each_servers_format(text):
    match parse_result_line(text):
        case ("a", Answer(body=body)):
            assert {key: body[key] for key in COMPLETION} == COMPLETION
        case other:
            pytest.fail(f"{other}")


FAILED = {
    "a 4xx in the error file": (
        line("a", response(api_error("Too long.", type="invalid_request_error", param=None, code="too_long"), 400)),
        Failure("Too long.", 400, "too_long"),
    ),
    "a 4xx with a type only": (
        line("a", response(api_error("Bad.", type="invalid_request_error", code=None), 400)),
        Failure("Bad.", 400, "invalid_request_error"),
    ),
    "a 4xx with a message only": (line("a", response(api_error("Bad."), 422)), Failure("Bad.", 422, None)),
    "a 4xx with its body as a JSON string": (
        line("a", response(json.dumps(api_error("Bad.", code="bad")), 400)),
        Failure("Bad.", 400, "bad"),
    ),
    "a 4xx with the error beside the response": (
        line("a", response(None, 404), error={"code": "gone", "message": "No such model."}),
        Failure("No such model.", 404, "gone"),
    ),
    "a 429": (
        line("a", response(api_error("Slow down.", code="rate_limit_exceeded"), 429)),
        Failure("Slow down.", 429, "rate_limit_exceeded"),
    ),
    "expired": (
        line("a", None, {"code": "batch_expired", "message": "The window closed."}),
        Failure("The window closed.", None, "batch_expired"),
    ),
    "inference failed (aibrix)": (
        line("a", None, {"code": "inference_failed", "message": "No pod."}),
        Failure("No pod.", None, "inference_failed"),
    ),
    "a refusal in the SDK's wording (llama-stack)": (
        line("a", None, {"type": "request_failed", "message": "Error code: 400 - No."}),
        Failure("Error code: 400 - No.", 400, "request_failed"),
    ),
    "error with a type and no response (llama-stack)": (
        b'{"id":"1","custom_id":"a","error":{"type":"server_error","message":"Oops."}}',
        Failure("Oops.", None, "server_error"),
    ),
    "error without a code": (line("a", None, {"message": "Oops."}), Failure("Oops.", None, None)),
    "error as text": (line("a", None, "Oops."), Failure("Oops.", None, None)),
    "code as a number": (line("a", None, {"code": 507, "message": "Oops."}), Failure("Oops.", None, "507")),
    "status code 0": (line("a", response({}, 0)), Failure("The server gave no reason.", 0, None)),
    "status code 0 without a body": (line("a", response(None, 0)), Failure("The server gave no reason.", 0, None)),
    "status code null": (line("a", response({}, None)), Failure("The server gave no reason.", None, None)),
    "200 with an error as its body": (
        line("a", response(api_error("Filtered.", code="content_filter"))),
        Failure("Filtered.", 200, "content_filter"),
    ),
    "200 with an error beside it": (
        line("a", response(COMPLETION), {"code": "odd", "message": "Not quite."}),
        Failure("Not quite.", 200, "odd"),
    ),
    "200 without a body": (line("a", response(None)), Failure("The answer has no body.", 200, MALFORMED_RESULT)),
    "200 with an empty body": (line("a", response({})), Failure("The answer has no body.", 200, MALFORMED_RESULT)),
    "200 with a list": (line("a", response([1])), Failure("The answer has no body.", 200, MALFORMED_RESULT)),
    "200 with text that is no JSON": (
        line("a", response("<html>")),
        Failure("The answer is not JSON.", 200, MALFORMED_RESULT),
    ),
    "neither response nor error": (
        line("a"),
        Failure("The server gave neither an answer nor a reason.", None, MISSING_RESULT_CODE),
    ),
}


@pytest.mark.parametrize(("text", "failure"), FAILED.values(), ids=FAILED.keys())
def test_a_failure_keeps_message_status_code_and_code(text, failure):
    """Servers put them in different fields."""
    assert parse_result_line(text) == ("a", failure)


@pytest.mark.parametrize(
    "text",
    [
        line("a", response("Prompt not accepted.", 400)),
        line("a", response("<html>", 400), {"code": "bad", "message": "Prompt not accepted."}),
    ],
    ids=["the message is the body", "the message stands beside it"],
)
def test_a_refusal_in_plain_text_keeps_its_message(text):
    """A 400 whose body is not JSON is lasting, so that the request is not submitted and billed again."""
    match parse_result_line(text):
        case ("a", Failure(message, 400, code)):
            assert "Prompt not accepted." in message
            assert not errors.is_transient(400, code)
        case other:
            pytest.fail(f"{other}")


LINES_WITHOUT_A_REQUEST = {
    "empty": b"",
    "not JSON": b"oops\n",
    "cut off": line("a", response(COMPLETION))[:-5],
    "not UTF-8": b'{"custom_id":"a","response":"\xff"}',
    "a byte order mark alone": b"\xef\xbb\xbf\n",
    "null": b"null\n",
    "a number": b"7\n",
    "a string": b'"a"\n',
    "a list": b"[]\n",
    "no custom_id": b"{}\n",
    "custom_id null": b'{"custom_id":null}\n',
    "custom_id a number": b'{"custom_id":7}\n',
    "two objects": line("a").rstrip() + line("b"),
    "nested too deeply": b"[" * 100_000,
}


@pytest.mark.parametrize("text", LINES_WITHOUT_A_REQUEST.values(), ids=LINES_WITHOUT_A_REQUEST.keys())
def test_a_line_that_names_no_request_has_no_outcome(text):
    assert parse_result_line(text) is None


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Failure("Bad.", 400, "bad"), "Bad. (400, bad)"),
        (Failure("Bad.", None, "bad"), "Bad. (bad)"),
        (Failure("Bad.", 400), "Bad. (400)"),
        (Failure("Bad."), "Bad."),
    ],
)
def test_a_failures_text_is_its_message_with_the_codes(failure, text):
    assert str(failure) == text


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 5}, (3, 5)),
        ({"prompt_tokens": 3}, (3, 0)),
        ({"prompt_tokens": None, "completion_tokens": "5"}, (0, 0)),
        (None, (0, 0)),
        ([], (0, 0)),
    ],
)
def test_tokens_are_read_from_the_usage(usage, tokens):
    """A malformed usage counts as 0 and does not cost the answer."""
    assert Answer.of({"usage": usage}).tokens == tokens
    assert Answer.of({}).tokens == (0, 0)


def test_the_details_of_tokens_are_read_from_the_usage():
    usage = {
        "prompt_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 2},
        "completion_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert Answer.of({"usage": usage}).token_details == (7, 2, 4)
    failure = find_failure({"usage": usage, "choices": []}, 200)
    assert (failure.tokens, failure.token_details) == ((9, 5), (7, 2, 4))
    assert usage_of(failure) == usage_of(Answer.of({"usage": usage})) == Usage(9, 5, 7, 2, 4)


@pytest.mark.parametrize("text", ['"\\ud83d and more"', "-Infinity"])
def test_an_answer_may_hold_json_that_only_python_parses(text):
    """The SDK parses such an answer too, and it was paid for."""
    result_line = (
        b'{"custom_id":"a-0","response":{"status_code":200,"body":{"choices":[%b]}},"error":null}' % text.encode()
    )
    custom_id, answer = parse_result_line(result_line)
    assert (custom_id, answer.body) == ("a-0", {"choices": [json.loads(text)]})
    assert Answer.of(answer.body).body["choices"] in ([json.loads(text)], [None])


def test_a_built_line_is_parsed_into_the_same_answer():
    parsed = parse_result_line(build_result_line("a-0", COMPLETION))
    assert parsed == ("a-0", Answer.of(COMPLETION))
    assert parsed[1].custom_id == "a-0"
    assert Answer.of(COMPLETION).custom_id is None


def test_answers_are_equal_if_their_bodies_are():
    assert Answer.of({"n": 1}) == Answer(line("a", response('{"n": 1}')), (0, 0))
    assert Answer.of({"n": 1}) != Answer.of({"n": 2})
    assert Answer.of({"n": 1}) != {"n": 1}


def test_a_synchronous_reply_may_hold_an_error_in_spite_of_its_status():
    body = COMPLETION | {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    answer = read_answer(body)
    assert answer == Answer.of(body)
    assert isinstance(answer, Answer)
    assert answer.tokens == (3, 4)
    assert read_answer({"error": {"message": "Overloaded.", "code": "busy"}}) == Failure("Overloaded.", 200, "busy")
    assert read_answer({}) == Failure("The answer has no body.", 200, MALFORMED_RESULT)


def test_the_failure_of_a_rejected_batch_is_transient():
    failure = batch_failure("batch_1", "no_model: No such model.")
    assert str(failure) == "Batch batch_1 failed: no_model: No such model. (batch_failed)"
    assert errors.is_transient(failure.status_code, failure.code)
