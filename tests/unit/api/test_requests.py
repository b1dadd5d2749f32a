"""Requests, their digests and `custom_id`s, and shards."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.api.encoding import encode_body
from distilabel_openai_batch.api.requests import (
    BodyTemplate,
    Request,
    Shard,
    build_custom_id,
    cut_shards,
    digest_body,
    is_custom_id,
    sample_evenly,
)
from tests.support.sdk_bodies import SDK_BODIES, Prediction
from tests.support.strategies import BODIES, JSON, TEXT

CHAT = "/v1/chat/completions"
BASE_URL = "https://api.openai.com/v1/"


def request(name: object, endpoint: str = CHAT, model: str = "gpt-4o-mini", size: int = 0) -> Request:
    """Return a request whose line has at least `size` bytes."""
    shortest = Request(str(name), endpoint, model, b'{"x":""}')
    padding = b"x" * max(0, size - len(shortest.line()))
    return Request(str(name), endpoint, model, b'{"x":"%b"}' % padding)


@given(BODIES, st.sampled_from([CHAT, "/v1/completions", "/chat/completions"]))
def test_a_requests_line_is_one_line_of_json(body, endpoint):
    text = Request("0123-0", endpoint, "gpt-4o-mini", encode_body(body)).line()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert b"\r" not in text
    assert json.loads(text) == {"custom_id": "0123-0", "method": "POST", "url": endpoint, "body": body}


def shuffled(value: object, draw: st.DrawFn) -> object:
    """Return a value with the keys of its objects in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}
    if isinstance(value, list):
        return [shuffled(item, draw) for item in value]
    return value


@given(BODIES, st.data())
def test_the_order_of_keys_does_not_change_the_digest(body, data):
    """A run that builds the same body in another order finds its answer again."""
    other = shuffled(body, data.draw)
    assert digest_body(BASE_URL, CHAT, encode_body(body)) == digest_body(BASE_URL, CHAT, encode_body(other))


@given(BODIES, TEXT, JSON, JSON)
def test_a_template_gives_the_same_json_and_digest_as_each_body(body, name, value, other):
    template = BodyTemplate({**body, name: value}, name)
    check_template(template, {**body, name: other})


@given(BODIES, TEXT, st.lists(st.one_of(TEXT, st.just("\ud800"), JSON), max_size=4))
def test_a_template_fills_several_bodies_as_it_fills_each(body, name, values):
    template = BodyTemplate({**body, name: ""}, name)
    try:
        filled = [template.fill([value], BASE_URL, CHAT) for value in values]
    except ValueError:
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            template.fill(values, BASE_URL, CHAT)
        return
    digests, bodies = template.fill(values, BASE_URL, CHAT)
    assert digests == b"".join([digest for digest, _ in filled])
    assert [*map(bytes, bodies)] == [bytes(body) for _, [body] in filled]


@given(BODIES, st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.data())
def test_a_template_of_a_chat_keeps_its_texts_until_they_are_sent(body, messages, data):
    """The caller may change its lists and dictionaries meanwhile."""
    template = BodyTemplate({**body, "messages": []}, "messages", roles=[role for role, _ in messages])
    chat = [shuffled({"role": role, "content": text}, data.draw) for role, text in messages]
    body = {**body, "messages": chat}
    digest, [filled] = template.fill([chat], BASE_URL, CHAT)
    expected = encode_body({**body, "messages": [{"role": role, "content": text} for role, text in messages]})
    chat[0]["content"] = "changed"
    assert (bytes(filled), digest.hex()) == (expected, digest_body(BASE_URL, CHAT, expected))
    assert len(filled) == len(bytes(filled))


def check_template(template: BodyTemplate, body: dict[str, object]) -> None:
    """Check a filled template against the body itself, at two addresses in turn."""
    for base_url in (BASE_URL, "https://example.com/v1/", BASE_URL):
        digest, [filled] = template.fill([body[template.field]], base_url, CHAT)
        assert bytes(filled) == encode_body(body)
        assert len(filled) == len(bytes(filled))
        assert digest.hex() == digest_body(base_url, CHAT, encode_body(body))


def test_a_template_rejects_values_that_json_cannot_hold():
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        BodyTemplate({"messages": []}, "messages").fill([[object()]], BASE_URL, CHAT)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        BodyTemplate({"messages": [], "seed": object()}, "messages")


BODY = {"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "n": 1}


@pytest.mark.parametrize(
    ("base_url", "endpoint", "body"),
    [
        ("https://example.com/v1/", CHAT, BODY),
        (BASE_URL, "/v1/completions", BODY),
        (BASE_URL, CHAT, {**BODY, "model": "n"}),
        (BASE_URL, CHAT, {**BODY, "n": 2}),
        (BASE_URL, CHAT, {**BODY, "n": "1"}),
        (BASE_URL, CHAT, {**BODY, "n": None}),
        (BASE_URL, CHAT, {**BODY, "messages": BODY["messages"][::-1]}),
        (BASE_URL + CHAT[:3], CHAT[3:], BODY),
    ],
    ids=["server", "endpoint", "model", "value", "type", "null", "order of a list", "where the parts meet"],
)
def test_another_request_has_another_digest(base_url, endpoint, body):
    """The digest covers each part that could change the answer."""
    assert digest_body(base_url, endpoint, encode_body(body)) != digest_body(BASE_URL, CHAT, encode_body(BODY))


@given(BODIES)
def test_a_digest_has_32_characters(body):
    """A custom_id with an occurrence number stays within Together's limit of 64 characters."""
    text = digest_body(BASE_URL, CHAT, encode_body(body))
    assert len(text) == 32
    assert text.isascii()
    assert text.isalnum()


@pytest.mark.parametrize(("body", "written"), SDK_BODIES)
def test_values_that_only_the_sdk_writes_have_the_digest_of_their_json(body, written):
    assert digest_body(BASE_URL, CHAT, encode_body(body)) == digest_body(BASE_URL, CHAT, written.encode())
    template = BodyTemplate({**body, "messages": []}, "messages")
    whole = {**body, "messages": [{"role": "user", 1: Prediction(content="z")}]}
    check_template(template, whole)


def test_large_integers_have_different_digests():
    """Floats of both would be equal."""
    assert len({digest_body(BASE_URL, CHAT, encode_body({"seed": 2**70 + more})) for more in (0, 1)}) == 2


def names(shards: list[Shard]) -> list[list[str]]:
    """Return the custom_ids in each shard."""
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
def test_a_shard_is_filled_exactly_to_its_limits(sizes, max_requests, max_bytes, expected):
    requests = [request(number, size=size) for number, size in enumerate(sizes)]
    shards = list(cut_shards(requests, max_requests, max_bytes))
    assert ["".join(shard) for shard in names(shards)] == expected
    assert [shard.size for shard in shards] == [sum(len(r.line()) for r in shard.requests) for shard in shards]


def test_a_shard_has_one_endpoint_and_one_model():
    """A server refuses a file with several; each endpoint and model keeps its order."""
    requests = [
        request("a1", model="a"),
        request("b1", model="b"),
        request("a2", model="a"),
        request("c1", "/v1/completions", "a"),
        request("b2", model="b"),
    ]
    shards = list(cut_shards(requests, 10, 10_000))
    assert sorted(names(shards)) == [["a1", "a2"], ["b1", "b2"], ["c1"]]
    assert {shard.endpoint for shard in shards} == {CHAT, "/v1/completions"}


MIXES = st.lists(
    st.tuples(st.sampled_from([CHAT, "/v1/completions"]), st.sampled_from("ab"), st.integers(80, 300)), max_size=30
)


@given(MIXES, st.integers(1, 6), st.integers(200, 700))
def test_the_fewest_shards_hold_each_request_once_and_in_order(mix, max_requests, max_bytes):
    requests = [request(n, endpoint, model, size) for n, (endpoint, model, size) in enumerate(mix)]
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
def test_a_split_shard_has_parts_of_about_the_same_length(count, size, lengths):
    """The parts keep the order, and their sizes add up."""
    [shard] = cut_shards([request(n, size=100 + n) for n in range(count)], 50, 10_000)
    parts = shard.split(size)
    assert [len(part.requests) for part in parts] == lengths
    assert [request for part in parts for request in part.requests] == shard.requests
    for part in parts:
        assert part.size == sum(len(request.line()) for request in part.requests)


@pytest.mark.parametrize(
    ("custom_ids", "expected"),
    [
        ({"0", "2"}, ["02", "1"]),
        ({"0", "1", "2"}, ["012", ""]),
        (set(), ["", "012"]),
        ({"9"}, ["", "012"]),
    ],
)
def test_a_shard_is_split_by_ids(custom_ids, expected):
    parts = Shard.of([request(number) for number in range(3)]).split_by_ids(custom_ids)
    assert ["".join(request.custom_id for request in part.requests) if part else "" for part in parts] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (build_custom_id(digest_body(BASE_URL, CHAT, b"{}"), 12), True),
        ("a" * 32 + "-0", True),
        ("a" * 31 + "-0", False),
        ("A" * 32 + "-0", False),
        ("a" * 32, False),
        ("a" * 32 + "-", False),
        ("x" + "a" * 32 + "-0", False),
        ("request-1", False),
    ],
)
def test_only_our_own_custom_ids_are_recognised(text, expected):
    assert is_custom_id(text) is expected


@pytest.mark.parametrize(
    ("count", "size", "numbers"),
    [(0, 3, []), (2, 3, [0, 1]), (3, 3, [0, 1, 2]), (5, 3, [0, 1, 3]), (9, 3, [0, 3, 6]), (100, 2, [0, 50])],
)
def test_a_sample_is_spread_over_all_requests(count, size, numbers):
    requests = [request(number) for number in range(count)]
    assert sample_evenly(requests, size) == [requests[number] for number in numbers]
