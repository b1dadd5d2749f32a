"""The join of a job's requests with the lines of its files."""

from __future__ import annotations

import io
import json
import random
import sys
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch import errors
from distilabel_openai_batch.api import result_files
from distilabel_openai_batch.api.failure_codes import MISSING_RESULT_CODE
from distilabel_openai_batch.api.outcomes import (
    MISSING_RESULT,
    UNNAMED_RESULT,
    Answer,
    Failure,
    build_result_line,
)
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.usage import LONG_PROMPT, NO_DETAILS, Usage
from tests.support.result_lines import COMPLETION, api_error, line, response


def results_of(custom_ids: list[str], lines: list[bytes]) -> JobResults:
    """Return the results of two files, each with half of the lines."""
    half = len(lines) // 2
    return JobResults(custom_ids, [io.BytesIO(b"".join(part)) for part in (lines[:half], lines[half:])])


def test_a_failed_request_does_not_shift_other_answers():
    """In distilabel's own offline mode every later answer moves one row up."""
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
def test_a_request_without_a_line_is_missing(lines):
    """Empty files leave every request with a transient failure."""
    results = results_of(["a", "b"], lines)
    assert [outcome.code for outcome in dict(results).values()] == [MISSING_RESULT_CODE, MISSING_RESULT_CODE]
    assert all(errors.is_transient(outcome.status_code, outcome.code) for outcome in dict(results).values())
    assert results.stray_lines == 0


def test_the_first_of_two_answers_counts():
    lines = [line("a", response({"n": 1})), line("a", response({"n": 2}))]
    assert list(dict(results_of(["a"], lines)).values()) == [Answer.of({"n": 1})]


@pytest.mark.parametrize("answer_first", [True, False], ids=["answer first", "failure first"])
def test_an_answer_counts_more_than_a_failure(answer_first):
    """A paid answer is used."""
    lines = [line("a", response({"n": 1})), line("a", None, {"code": "batch_expired", "message": "Late."})]
    results = results_of(["a"], lines if answer_first else lines[::-1])
    assert list(dict(results).values()) == [Answer.of({"n": 1})]


def test_stray_lines_are_counted():
    """Unknown custom_ids and malformed lines are strays; blank lines are not counted."""
    lines = [line("z", response(COMPLETION)), b"oops\n", b"\n", line("a", response(COMPLETION))]
    results = results_of(["a"], lines)
    assert list(dict(results).values()) == [Answer.of(COMPLETION)]
    assert results.stray_lines == 2


KINDS = st.sampled_from(["answer", "answer as text", "refused", "expired", "status 0", "cut off"])
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
def requests_and_lines(draw):
    """Draw names of requests, and lines in any order, each with its request, its kind and its text."""
    names = draw(st.lists(st.text("abc123-", min_size=1, max_size=4), min_size=1, max_size=8, unique=True))
    lines = []
    for name in names:
        for number, kind in enumerate(draw(st.lists(KINDS, max_size=3))):
            text = f"{name}\u2028{number}"
            result = {
                "answer": line(name, response({"text": text})),
                "answer as text": line(name, response(json.dumps({"text": text}))),
                "refused": line(name, response(api_error(text, code="bad"), 400)),
                "expired": line(name, None, {"code": "batch_expired", "message": text}),
                "status 0": line(name, response(api_error(text), 0)),
                "cut off": line(name, response({"text": text}))[: draw(st.integers(1, 20))] + b"\n",
            }[kind]
            if draw(st.booleans()):
                result = result[:-1] + b"\r\n"
            lines.append((name if kind != "cut off" else None, kind, text, result))
    lines += [(None, "junk", "", junk) for junk in draw(st.lists(JUNK, max_size=4))]
    return names, draw(st.permutations(lines))


@given(requests_and_lines())
def test_each_request_gets_its_own_outcome_from_any_mix_of_lines(case):
    """Lines come in any order: answers, failures, missing, repeated, unknown and malformed lines."""
    names, lines = case
    results = results_of(names, [text for *_, text in lines])
    assert list(dict(results)) == names
    is_any_named = any(owner for owner, *_ in lines)
    objects = sum(kind == "junk" and text.startswith(b'{"') for _, kind, _, text in lines)
    missing = UNNAMED_RESULT if not is_any_named and objects >= len(names) else MISSING_RESULT
    for name, outcome in results:
        own = [(kind, text) for owner, kind, text, _ in lines if owner == name]
        answers = [text for kind, text in own if kind.startswith("answer")]
        failures = [text for kind, text in own if not kind.startswith("answer")]
        if answers:
            assert outcome == Answer.of({"text": answers[0]})
        elif failures:
            assert isinstance(outcome, Failure)
            assert outcome.message == failures[0]
        else:
            assert outcome == missing
    assert results.stray_lines == sum(owner is None and bool(text.strip()) for owner, _, _, text in lines)


FOREIGN_LINES = {
    "other custom_ids": lambda n: build_result_line(f"row-{n}", {"id": str(n)}),
    "no custom_id": lambda n: b'{"response": {"status_code": 200, "body": {"id": "%d"}}}\n' % n,
    "Bedrock's lines": lambda n: b'{"recordId": "R%d", "modelOutput": {"content": "yes"}}\n' % n,
}


@pytest.mark.parametrize("line", FOREIGN_LINES.values(), ids=FOREIGN_LINES.keys())
def test_requests_fail_for_good_if_all_results_have_other_names(line):
    """A further job would be billed and end the same way."""
    results = JobResults(["a", "b", "c"], [io.BytesIO(b"".join(map(line, range(3))))])
    assert list(results) == [(name, UNNAMED_RESULT) for name in "abc"]
    assert not UNNAMED_RESULT.is_transient
    assert (results.stray_lines, results.reported) == (3, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"custom_id": "x"}\n',
        b'{"custom_id": \n' * 3,
        build_result_line("a", {"id": "1"}) + b'{"custom_id": "x"}\n' * 3,
    ],
    ids=["empty", "fewer lines than requests", "cut lines", "one line is known"],
)
def test_a_request_without_a_line_may_be_submitted_again_otherwise(content):
    results = JobResults(["a", "b", "c"], [io.BytesIO(content)])
    assert dict(results)["c"] is MISSING_RESULT


@pytest.mark.parametrize("text", ["one\u2028two", "one\u2029two", "one\x85two", "one\x0btwo", "naïve 🙂", "\x00"])
def test_only_a_line_feed_ends_a_line(text):
    """Other languages end a line at U+2028 and similar characters."""
    body = {"choices": [{"message": {"content": text}}]}
    lines = [line("a", response(body)), line("b", response(COMPLETION))]
    assert list(dict(results_of(["a", "b"], lines)).values()) == [Answer.of(body), Answer.of(COMPLETION)]


@pytest.mark.parametrize("has_details", [True, False])
def test_the_usage_of_all_answers_is_summed(has_details):
    """Answers to long prompts are listed one by one; the model is the one of the first answer."""
    details = (7, 5, 1) if has_details else NO_DETAILS
    usage = {"prompt_tokens": LONG_PROMPT, "completion_tokens": 2}
    if has_details:
        usage["prompt_tokens_details"] = {"cached_tokens": 7, "cache_write_tokens": 5}
        usage["completion_tokens_details"] = {"reasoning_tokens": 1}
    short = {"model": "m-2024", "usage": usage}
    long = {"model": "other", "usage": usage | {"prompt_tokens": LONG_PROMPT + 1}}
    results = JobResults(["a", "b"], [io.BytesIO(build_result_line("b", short) + build_result_line("a", long))])
    assert (results.answers, results.model) == (2, "m-2024")
    assert results.usage == Usage(LONG_PROMPT, 2, *details) + Usage.of_request(LONG_PROMPT + 1, 2, *details)
    assert [(answer.tokens, answer.token_details) for _, answer in results] == [
        ((LONG_PROMPT + 1, 2), details),
        ((LONG_PROMPT, 2), details),
    ]


def test_the_files_stay_open():
    """The files are read twice, and their owner closes them."""
    file = io.BytesIO(build_result_line("a", COMPLETION))
    results = JobResults(["a"], [file])
    assert len(list(results)) == 1
    assert not file.closed


def test_each_custom_id_is_freed_behind_its_outcome():
    custom_id = "".join(["long", "name"])
    outcomes = iter(JobResults([custom_id, "b"], []))
    references = sys.getrefcount(custom_id)
    assert next(outcomes)[0] == custom_id
    assert next(outcomes)[0] == "b"
    assert sys.getrefcount(custom_id) < references


def _usage(number: int) -> dict[str, object]:
    return {
        "prompt_tokens": [7, LONG_PROMPT + 1, -1, 10**9, 2**70][number],
        "completion_tokens": number,
        "prompt_tokens_details": {"cached_tokens": number, "cache_write_tokens": None},
        "completion_tokens_details": {"reasoning_tokens": 3} if number % 2 else None,
    }


def _answer(finish_reason: str = "stop", number: int = 0, choices: int = 1) -> dict[str, object]:
    choice = {"message": {"content": "é" * number}, "finish_reason": finish_reason}
    return COMPLETION | {"model": f"m-{number}", "choices": [choice] * choices, "usage": _usage(number)}


_NAMES = st.sampled_from("aaabcdefg?")
_NUMBERS = st.integers(0, 4)
_LINES = st.one_of(
    st.builds(lambda name, number: line(name, response(_answer(number=number))), _NAMES, st.integers(0, 1)),
    st.builds(lambda name, number: line(name, response(_answer(number=number))), _NAMES, _NUMBERS),
    st.builds(lambda name, number: line(name, response(_answer("length", number))), _NAMES, _NUMBERS),
    st.builds(lambda name, count: line(name, response(_answer(choices=count))), _NAMES, st.integers(0, 2)),
    st.builds(lambda name: line(name, response(api_error("Bad.", code="bad"), 400)), _NAMES),
    st.builds(lambda name: line(name, response(_answer()))[:-1] * 2 + b"\n", _NAMES),
    st.builds(lambda name: line(name, response(_answer())).replace(b":", b":\n", 2), _NAMES),
    st.sampled_from([b"\n", b"{}\n", b"\xff\n", b'{"custom_id":"a"}\n', b"}\n", b"{\n"]),
)


@settings(max_examples=200)
@given(files=st.lists(st.lists(_LINES, max_size=12), max_size=2), ends=st.booleans(), block=st.integers(1, 3_000))
def test_lines_have_the_same_outcomes_together_and_one_by_one(files, ends, block):
    contents = [b"".join(lines) if ends else b"".join(lines).rstrip(b"\n") for lines in files]

    def read() -> dict[str, object]:
        results = JobResults([*"abcdefg"], [io.BytesIO(content) for content in contents])
        names = ("missing", "stray_lines", "answers", "reported", "usage")
        outcomes = [
            (name, outcome.line, outcome.tokens, outcome.token_details, outcome.is_whole)
            if isinstance(outcome, Answer)
            else (name, outcome)
            for name, outcome in results
        ]
        return {"outcomes": outcomes} | {name: getattr(results, name) for name in names}

    with mock.patch.multiple(result_files, _BLOCK_BYTES=block, _CHUNK=3):
        together = read()
    with mock.patch.object(result_files, "read_plain_lines", return_value=None):
        assert together == read()


def test_plain_lines_are_not_parsed_one_by_one():
    content = b"".join(line(name, response(_answer())) for name in "abc")
    with mock.patch.object(result_files, "parse_result_line", side_effect=AssertionError):
        assert JobResults([*"cba"], [io.BytesIO(content)]).answers == 3


@pytest.mark.parametrize("order", ["asked", "reversed", "shuffled"])
@pytest.mark.parametrize("size", [1, 40, 1_000])
def test_lines_are_read_from_a_file_in_any_order(tmp_path, order, size):
    """Neighbouring lines are read together, here up to 100 bytes."""
    names = [f"{number}" for number in range(50)]
    lines = [build_result_line(name, COMPLETION | {"id": name * size}) for name in names]
    ordered = {"asked": lines, "reversed": lines[::-1], "shuffled": random.Random(0).sample(lines, len(lines))}[order]
    (tmp_path / "output").write_bytes(b"".join(ordered))
    with (
        (tmp_path / "output").open("rb", buffering=0) as file,
        mock.patch.object(result_files, "_READ_BYTES", 100),
    ):
        assert [outcome.line for _, outcome in JobResults(names, [file])] == lines
