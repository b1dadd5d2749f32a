"""The Batch API's JSON: what is written is what was asked, and what is read is nobody else's."""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.batches import Batch, BatchError, read_batch
from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.failure_codes import MALFORMED, MISSING
from distilabel_openai_batch.api.outcomes import Answer, Failure, build_result_line, parse_result_line
from distilabel_openai_batch.api.requests import BodyTemplate, Request, Shard, cut_shards, digest_body
from distilabel_openai_batch.api.result_files import JobResults

CHAT = "/v1/chat/completions"
BASE_URL = "https://api.openai.com/v1/"
COMPLETION = {"id": "chatcmpl-1", "choices": [{"message": {"content": "Hello"}}]}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(TEXT, JSON, max_size=4)


def asked(name: object, endpoint: str = CHAT, model: str = "gpt-4o-mini", size: int = 0) -> Request:
    """A request whose line has `size` bytes, if that is enough for it."""
    request = Request(str(name), endpoint, model, b'{"x":""}')
    padding = b"x" * max(0, size - len(request.line()))
    return Request(str(name), endpoint, model, b'{"x":"%b"}' % padding)


def line(custom_id: object, response: object = None, error: object = None) -> bytes:
    """A line of an output or error file, as OpenAI writes it."""
    fields = {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def results_of(custom_ids: list[str], lines: list[bytes]) -> JobResults:
    """What two files say that have the lines between them."""
    half = len(lines) // 2
    return JobResults(custom_ids, [io.BytesIO(b"".join(part)) for part in (lines[:half], lines[half:])])


def response(body: object, status_code: object = 200) -> dict[str, object]:
    """The `response` of a line."""
    return {"status_code": status_code, "request_id": "req_1", "body": body}


def api_error(message: str, **fields: object) -> dict[str, object]:
    """The body that the API answers with when it refuses."""
    return {"error": {"message": message, **fields}}


# A line of a result file.

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


@pytest.mark.parametrize("text", ANSWERED.values(), ids=ANSWERED.keys())
def test_an_answer_is_read(text):
    """However a server writes it, the body is what the synchronous endpoint would have answered with."""
    match parse_result_line(text):
        case ("a", Answer(body=body)):
            assert {key: body[key] for key in COMPLETION} == COMPLETION
        case other:
            pytest.fail(f"{other}")


@pytest.mark.parametrize("text", ["one\u2028two", "one\u2029two", "one\x85two", "one\x0btwo", "naïve 🙂", "\x00"])
def test_an_answer_keeps_its_characters(text):
    """What other languages count as a line's end is only a character here."""
    body = {"choices": [{"message": {"content": text}}]}
    lines = [line("a", response(body)), line("b", response(COMPLETION))]
    assert list(dict(results_of(["a", "b"], lines)).values()) == [Answer.of(body), Answer.of(COMPLETION)]


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
    "refused, in the SDK's words (llama-stack)": (
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
    "200 without a body": (line("a", response(None)), Failure("The answer has no body.", 200, MALFORMED)),
    "200 with an empty body": (line("a", response({})), Failure("The answer has no body.", 200, MALFORMED)),
    "200 with a list": (line("a", response([1])), Failure("The answer has no body.", 200, MALFORMED)),
    "200 with text that is no JSON": (
        line("a", response("<html>")),
        Failure("The answer is not JSON.", 200, MALFORMED),
    ),
    "neither response nor error": (
        line("a"),
        Failure("The server gave neither an answer nor a reason.", None, MISSING),
    ),
}


@pytest.mark.parametrize(("text", "failure"), FAILED.values(), ids=FAILED.keys())
def test_a_failure_says_what_the_server_said(text, failure):
    """Message, status code and code are the API's own, wherever the server puts them."""
    assert parse_result_line(text) == ("a", failure)


@pytest.mark.parametrize(
    "text",
    [
        line("a", response("Prompt not accepted.", 400)),
        line("a", response("<html>", 400), {"code": "bad", "message": "Prompt not accepted."}),
    ],
    ids=["the message is the body", "the message stands beside it"],
)
def test_a_refusal_in_plain_text_is_a_refusal(text):
    """A 400 whose body is no JSON is not asked, and paid for, again, and its message is not swallowed."""
    match parse_result_line(text):
        case ("a", Failure(message, 400, code)):
            assert "Prompt not accepted." in message
            assert not errors.is_transient(400, code)
        case other:
            pytest.fail(f"{other}")


UNATTRIBUTABLE = {
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


@pytest.mark.parametrize("text", UNATTRIBUTABLE.values(), ids=UNATTRIBUTABLE.keys())
def test_a_line_that_names_no_request_is_nobodys(text):
    """It is given to no request, and does no harm."""
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
def test_a_failure_reads_as_a_sentence(failure, text):
    """Message first, then what the API calls it."""
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
def test_tokens_are_counted_where_the_server_says(usage, tokens):
    """A server that keeps no count costs nobody an answer."""
    assert Answer.of({"usage": usage}).tokens == tokens
    assert Answer.of({}).tokens == (0, 0)


@pytest.mark.parametrize(
    ("details", "cached"), [({"cached_tokens": 7}, 7), ({"cached_tokens": None}, 0), ({}, 0), (None, 0), ([], 0)]
)
def test_cached_tokens_are_counted_where_the_server_says(details, cached):
    """In an answer, and in a job's results, which also say which model it was."""
    body = {"model": "m-2024", "usage": {"prompt_tokens": 9, "prompt_tokens_details": details}}
    assert Answer.of(body).cached_tokens == cached
    results = JobResults(["a", "b"], [io.BytesIO(build_result_line("b", body) + build_result_line("a", body))])
    assert (results.cached_tokens, results.model) == (2 * cached, "m-2024")
    assert [answer.cached_tokens for _, answer in results] == [cached, cached]


# A job's files.


def test_a_failed_request_leaves_its_neighbours_in_place():
    """The fault of distilabel's own offline mode: every later answer moved one row up."""
    lines = [
        line("c", response({"text": "third"})),
        line("a", response({"text": "first"})),
        line("b", response(api_error("Bad.", code="bad"), 400)),
    ]
    results = results_of(["a", "b", "c"], lines)
    assert list(dict(results).values()) == [
        Answer.of({"text": "first"}),
        Failure("Bad.", 400, "bad"),
        Answer.of({"text": "third"}),
    ]
    assert results.stray_lines == 0


@pytest.mark.parametrize("lines", [[], [b"\n", b"  \n", b"\r\n"]], ids=["no lines", "blank lines"])
def test_a_request_that_no_line_names_is_missing(lines):
    """Empty files leave every request with a failure that may be asked again."""
    results = results_of(["a", "b"], lines)
    assert [outcome.code for outcome in dict(results).values()] == [MISSING, MISSING]
    assert all(errors.is_transient(outcome.status_code, outcome.code) for outcome in dict(results).values())
    assert results.stray_lines == 0


def test_of_two_answers_the_first_counts():
    """A doubled line changes nothing."""
    lines = [line("a", response({"n": 1})), line("a", response({"n": 2}))]
    assert list(dict(results_of(["a"], lines)).values()) == [Answer.of({"n": 1})]


@pytest.mark.parametrize("answer_first", [True, False], ids=["answer first", "failure first"])
def test_an_answer_counts_more_than_a_failure(answer_first):
    """What was paid for is used."""
    lines = [line("a", response({"n": 1})), line("a", None, {"code": "batch_expired", "message": "Late."})]
    results = results_of(["a"], lines if answer_first else lines[::-1])
    assert list(dict(results).values()) == [Answer.of({"n": 1})]


def test_lines_of_nobody_are_counted():
    """Unknown custom_ids and malformed lines are strays; blank lines are nothing."""
    lines = [line("z", response(COMPLETION)), b"oops\n", b"\n", line("a", response(COMPLETION))]
    results = results_of(["a"], lines)
    assert list(dict(results).values()) == [Answer.of(COMPLETION)]
    assert results.stray_lines == 2


EVENTS = st.sampled_from(["answer", "answer as text", "refused", "expired", "status 0", "cut off"])
JUNK = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"   \n",
        b"{\n",
        b"null\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b'{"custom_id":7}\n',
        line("who?", response({})),
    ]
)


@st.composite
def files(draw):
    """Requests, and the lines about them in any order, with what each request was told."""
    names = draw(st.lists(st.text("abc123-", min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
    lines = []
    for name in names:
        for number, event in enumerate(draw(st.lists(EVENTS, max_size=3))):
            text = f"{name}\u2028{number}"
            result = {
                "answer": line(name, response({"text": text})),
                "answer as text": line(name, response(json.dumps({"text": text}))),
                "refused": line(name, response(api_error(text, code="bad"), 400)),
                "expired": line(name, None, {"code": "batch_expired", "message": text}),
                "status 0": line(name, response(api_error(text), 0)),
                "cut off": line(name, response({"text": text}))[: draw(st.integers(1, 20))] + b"\n",
            }[event]
            if draw(st.booleans()):
                result = result[:-1] + b"\r\n"
            lines.append((name if event != "cut off" else None, event, text, result))
    lines += [(None, "junk", "", junk) for junk in draw(st.lists(JUNK, max_size=4))]
    return names, draw(st.permutations(lines))


@given(files())
def test_every_request_gets_its_own_answer_or_a_failure_and_never_anothers(case):
    """Any order, any mix of answers, failures, missing, doubled, unknown and malformed lines."""
    names, lines = case
    results = results_of(names, [text for *_, text in lines])
    assert list(dict(results)) == names
    for name, outcome in results:
        told = [(event, text) for whose, event, text, _ in lines if whose == name]
        answers = [text for event, text in told if event.startswith("answer")]
        failures = [text for event, text in told if not event.startswith("answer")]
        if answers:
            assert outcome == Answer.of({"text": answers[0]})
        elif failures:
            assert isinstance(outcome, Failure)
            assert outcome.message == failures[0]
        else:
            assert isinstance(outcome, Failure)
            assert outcome.code == MISSING
    assert results.stray_lines == sum(whose is None and bool(text.strip()) for whose, _, _, text in lines)


# A request line.


@given(BODIES, st.sampled_from([CHAT, "/v1/completions", "/chat/completions"]))
def test_a_request_line_says_what_was_asked(body, endpoint):
    """Any JSON parser reads the same request from the one line that it is."""
    text = Request("0123-0", endpoint, "gpt-4o-mini", encode_body(body)).line()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert b"\r" not in text
    assert json.loads(text) == {"custom_id": "0123-0", "method": "POST", "url": endpoint, "body": body}


def _endless() -> dict[str, object]:
    body: dict[str, object] = {}
    body["self"] = body
    return body


@pytest.mark.parametrize(
    "body",
    [
        {"x": object()},
        {"x": {1, 2}},
        {"x": "\ud800"},
        {"\ud800": 1},
        {(1, 2): "x"},
        {"x": b"bytes"},
        _endless(),
    ],
    ids=["object", "set", "lone surrogate", "surrogate key", "key no text", "bytes", "endless"],
)
def test_what_json_cannot_say_is_a_value_error_with_the_reason(body):
    """The caller learns which request it is, and why, before anything is sent."""
    with pytest.raises(ValueError, match=r"cannot be written as JSON: .+"):
        encode_body(body)


class Prediction(BaseModel):
    type: str = "content"
    content: str


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ({"logit_bias": {50256: -100}}, '{"logit_bias":{"50256":-100}}'),
        ({"x": 2**70, "ü": None}, '{"x":1180591620717411303424,"ü":null}'),
        ({"x": Prediction(content="y")}, '{"x":{"content":"y"}}'),
        ({1: dt.date(2026, 1, 31)}, '{"1":"2026-01-31"}'),
    ],
)
def test_what_the_sdk_can_write_is_written(body, written):
    """As it does: models without their defaults, numbers of any size, and keys that are texts in the end."""
    assert encode_body(body) == written.encode()
    assert digest_body(BASE_URL, CHAT, encode_body(body)) == digest_body(BASE_URL, CHAT, written.encode())
    template = BodyTemplate({**body, "messages": []}, "messages")
    whole = {**body, "messages": [{"role": "user", 1: Prediction(content="z")}]}
    assert template.encode(whole) == encode_body(whole)
    assert template.digest(BASE_URL, CHAT, whole) == digest_body(BASE_URL, CHAT, encode_body(whole))


def test_large_numbers_are_told_apart():
    """A float would be the same for both."""
    assert len({digest_body(BASE_URL, CHAT, encode_body({"seed": 2**70 + more})) for more in (0, 1)}) == 2


@pytest.mark.parametrize("text", ['"\\ud83d and more"', "-Infinity"])
def test_an_answer_that_only_pythons_json_reads_is_an_answer(text):
    """The SDK reads it too, and it was paid for."""
    line = b'{"custom_id":"a-0","response":{"status_code":200,"body":{"choices":[%b]}},"error":null}' % text.encode()
    custom_id, answer = parse_result_line(line)
    assert (custom_id, answer.body) == ("a-0", {"choices": [json.loads(text)]})
    assert Answer.of(answer.body).body["choices"] in ([json.loads(text)], [None])


def _shuffled(value: object, draw: st.DrawFn) -> object:
    if isinstance(value, dict):
        return {key: _shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    if isinstance(value, list):
        return [_shuffled(item, draw) for item in value]
    return value


@given(BODIES, st.data())
def test_the_order_of_keys_does_not_make_another_question(body, data):
    """A rerun that builds the same body in another order finds its answer again."""
    other = _shuffled(body, data.draw)
    assert digest_body(BASE_URL, CHAT, encode_body(body)) == digest_body(BASE_URL, CHAT, encode_body(other))


@given(BODIES, TEXT, JSON, JSON)
def test_a_frame_makes_what_each_body_alone_would_be(body, name, value, other):
    """Where bodies differ in one field alone, whatever is in it and around it, their JSON and digests are the same."""
    template = BodyTemplate({**body, name: value}, name)
    body = {**body, name: other}

    assert template.encode(body) == encode_body(body)
    assert template.digest(BASE_URL, CHAT, body) == digest_body(BASE_URL, CHAT, encode_body(body))


def test_a_frame_says_what_is_no_json():
    """As where a body is encoded by itself."""
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        BodyTemplate({"messages": []}, "messages").encode({"messages": [object()]})
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        BodyTemplate({"messages": [], "seed": object()}, "messages")


QUESTION = {"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "n": 1}


@pytest.mark.parametrize(
    ("base_url", "endpoint", "body"),
    [
        ("https://example.com/v1/", CHAT, QUESTION),
        (BASE_URL, "/v1/completions", QUESTION),
        (BASE_URL, CHAT, {**QUESTION, "model": "n"}),
        (BASE_URL, CHAT, {**QUESTION, "n": 2}),
        (BASE_URL, CHAT, {**QUESTION, "n": "1"}),
        (BASE_URL, CHAT, {**QUESTION, "n": None}),
        (BASE_URL, CHAT, {**QUESTION, "messages": QUESTION["messages"][::-1]}),
        (BASE_URL + CHAT[:3], CHAT[3:], QUESTION),
    ],
    ids=["server", "endpoint", "model", "value", "type", "null", "order of a list", "where the parts meet"],
)
def test_another_question_has_another_digest(base_url, endpoint, body):
    """Nothing that could change the answer is left out."""
    assert digest_body(base_url, endpoint, encode_body(body)) != digest_body(BASE_URL, CHAT, encode_body(QUESTION))


@given(BODIES)
def test_a_digest_leaves_room_for_a_number_within_64_characters(body):
    """Together's limit of a custom_id, with an occurrence number of any size behind the digest."""
    text = digest_body(BASE_URL, CHAT, encode_body(body))
    assert len(text) == 32
    assert text.isascii()
    assert text.isalnum()


# Cutting shards.


def names(shards: list[Shard]) -> list[list[str]]:
    """The custom_ids in each shard."""
    return [[request.custom_id for request in shard.requests] for shard in shards]


@pytest.mark.parametrize(
    ("sizes", "max_requests", "max_bytes", "expected"),
    [
        ([], 3, 1_000, []),
        ([100], 3, 1_000, ["0"]),
        ([100, 100, 100], 3, 1_000, ["012"]),
        ([100, 100, 100, 100], 3, 1_000, ["012", "3"]),
        ([100, 100, 100, 100], 1, 1_000, ["0", "1", "2", "3"]),
        ([100, 100, 100], 9, 300, ["012"]),
        ([100, 100, 100], 9, 299, ["01", "2"]),
        ([100, 100, 101], 9, 300, ["01", "2"]),
        ([100, 100, 100, 100], 2, 200, ["01", "23"]),
        ([900, 100, 100], 9, 300, ["0", "12"]),
        ([100, 900, 100], 9, 300, ["0", "1", "2"]),
        ([900, 900], 9, 300, ["0", "1"]),
    ],
    ids=[
        "nothing",
        "one",
        "as many as fit",
        "one more",
        "one each",
        "as many bytes as fit",
        "a byte too many for the last",
        "the last a byte too long",
        "both limits at once",
        "a giant first",
        "a giant between",
        "giants only",
    ],
)
def test_a_shard_is_filled_to_its_limits_exactly(sizes, max_requests, max_bytes, expected):
    """Not one request or byte more than the limit, and not one fewer."""
    requests = [asked(number, size=size) for number, size in enumerate(sizes)]
    shards = list(cut_shards(requests, max_requests, max_bytes))
    assert ["".join(shard) for shard in names(shards)] == expected
    assert [shard.size for shard in shards] == [sum(len(r.line()) for r in shard.requests) for shard in shards]


def test_one_file_has_one_endpoint_and_one_model():
    """What the server would refuse together goes apart, each in its order."""
    requests = [
        asked("a1", model="a"),
        asked("b1", model="b"),
        asked("a2", model="a"),
        asked("c1", "/v1/completions", "a"),
        asked("b2", model="b"),
    ]
    shards = list(cut_shards(requests, 10, 10_000))
    assert sorted(names(shards)) == [["a1", "a2"], ["b1", "b2"], ["c1"]]
    assert {shard.endpoint for shard in shards} == {CHAT, "/v1/completions"}


MIXES = st.lists(
    st.tuples(st.sampled_from([CHAT, "/v1/completions"]), st.sampled_from("ab"), st.integers(80, 300)), max_size=30
)


@given(MIXES, st.integers(1, 6), st.integers(200, 700))
def test_cutting_loses_nothing_and_wastes_nothing(mix, max_requests, max_bytes):
    """Every request once, in order, within the limits, in as few shards as that allows."""
    requests = [asked(n, endpoint, model, size) for n, (endpoint, model, size) in enumerate(mix)]
    by_kind: dict[tuple[str, str], list[Shard]] = {}
    for shard in cut_shards(requests, max_requests, max_bytes):
        [kind] = {(request.endpoint, request.model) for request in shard.requests}
        by_kind.setdefault(kind, []).append(shard)
        assert shard.size == sum(len(request.line()) for request in shard.requests)
        assert len(shard.requests) <= max_requests
        assert shard.size <= max_bytes or len(shard.requests) == 1
    for kind, shards in by_kind.items():
        assert [r for shard in shards for r in shard.requests] == [r for r in requests if (r.endpoint, r.model) == kind]
        for shard, following in itertools.pairwise(shards):
            first = len(following.requests[0].line())
            assert len(shard.requests) == max_requests or shard.size + first > max_bytes
    assert set(by_kind) == {(request.endpoint, request.model) for request in requests}


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(2, 1, [1, 1]), (3, 1, [1, 1, 1]), (8, 3, [2, 3, 3]), (8, 9, [8])]
)
def test_parts_are_the_whole(count, size, lengths):
    """Shards of about as many requests, in the same order, whose sizes add up."""
    [shard] = cut_shards([asked(n, size=100 + n) for n in range(count)], 50, 10_000)
    parts = shard.split(size)
    assert [len(part.requests) for part in parts] == lengths
    assert [request for part in parts for request in part.requests] == shard.requests
    for part in parts:
        assert part.size == sum(len(request.line()) for request in part.requests)


# A batch object.

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
        Batch("b", "failed", errors=(BatchError("Wrong.", "invalid_url", 2), BatchError("no message"))),
    ),
    "errors as a list": (
        {"id": "b", "status": "failed", "errors": [{"message": "Wrong."}]},
        Batch("b", "failed", errors=(BatchError("Wrong."),)),
    ),
    "errors as text": ({"id": "b", "status": "failed", "errors": "what?"}, Batch("b", "failed")),
    "errors without data": ({"id": "b", "status": "failed", "errors": {"data": None}}, Batch("b", "failed")),
}


@pytest.mark.parametrize(("fields", "batch"), BATCHES.values(), ids=BATCHES.keys())
def test_a_batch_is_read_whatever_it_leaves_out(fields, batch):
    """Servers differ; only an id and a status are needed."""
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
def test_what_has_no_id_or_no_status_is_no_batch(fields):
    """It is not taken for a batch that is waiting."""
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
def test_a_batch_has_ended_when_its_status_will_not_change(status, ended):
    """An unknown status is waited for."""
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
def test_an_error_of_the_validation_names_code_message_and_line(error, text):
    """The API's own words, and where to look."""
    assert str(error) == text
