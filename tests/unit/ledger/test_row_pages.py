"""Pages of a scope's requests: found by number and state, and searched."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure, build_result_line
from distilabel_openai_batch.ledger import row_pages
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.row_pages import RowReader
from distilabel_openai_batch.ledger.states import ScopeName
from tests.support.ledgers import write_old_ledger
from tests.unit.ledger.samples import plan_created_job

TEXTS = ["The sky is blue.", "100 % of “trees”", 'A "quoted"\nanswer', "Ärger", "no_underscore", "noXunderscore"]


def answer(text: str) -> Answer:
    body = {"model": "m", "choices": [{"message": {"content": text}}]}
    return Answer(build_result_line("", body), (5, 3))


@pytest.fixture
def reader(ledger):
    """Return a reader of six answers, of which one is a refusal and one is cut, two failures and a pending request."""
    names = [f"{number}-0" for number in range(9)]
    job = plan_created_job(ledger, *names)
    outcomes = {name: answer(text) for name, text in zip(names, TEXTS, strict=False)}
    outcomes |= {name: Failure("Odd prompt.", 400, "invalid_prompt") for name in names[6:8]}
    ledger.requests.record(ledger.requests.request_ids(job), outcomes)
    ledger.row_failures.record_rejections({names[0]: Failure("I cannot help.", code="refusal")})
    ledger.row_failures.record_cut([names[1]])
    ledger.row_failures.record_prompt_starts({names[6]: "Which of the planets"})
    return RowReader(ledger.path.parent)


def scope_id(reader: RowReader) -> int:
    [scope] = reader.scopes()
    return scope.id


def find(reader: RowReader, text: str, **options) -> list[int]:
    """Return the places of the requests that contain a text, from 0."""
    rows = reader.page(scope_id(reader), text=text, **options).rows
    return [row.id - 1 for row in rows]


def test_a_row_has_its_outcome_and_its_numbers(reader):
    rows = reader.page(scope_id(reader)).rows
    assert [row.state for row in rows] == ["failed", *["answered"] * 5, "failed", "failed", "pending"]
    refused, cut, *_, failed, _, pending = rows
    assert (refused.code, refused.message, refused.answer) == ("refusal", "I cannot help.", answer(TEXTS[0]))
    assert (cut.is_cut, cut.code, cut.message, cut.tokens_in, cut.tokens_out) == (True, None, None, 5, 3)
    assert (failed.status_code, failed.code, failed.message) == (400, "invalid_prompt", "Odd prompt.")
    assert (failed.answer, failed.attempts, failed.prompt_start) == (None, 1, "Which of the planets")
    assert (pending.answer, pending.message, pending.tokens_in) == (None, None, None)
    assert reader.read_rows([failed.id, refused.id]) == [refused, failed]
    assert reader.find_input_file(failed)[1] is not None


def test_replaced_rows_have_a_state_of_their_own(reader, ledger):
    ledger.row_failures.record_replaced(dict.fromkeys(["0-0", "1-0", "6-0", "8-0"], True))
    rows = {state: reader.page(scope_id(reader), state=state).rows for state in row_pages.STATES}
    places = {state: [row.id - 1 for row in found] for state, found in rows.items()}
    others = {"answered": [2, 3, 4, 5], "failed": [7], "pending": [8], "cut": [], "replaced": [0, 1, 6]}
    assert places == {"all": list(range(9)), **others}
    assert [row.is_replaced for row in rows["all"]] == [True, True, *[False] * 4, True, False, False]


@pytest.mark.parametrize(
    ("state", "places"), [("answered", [1, 2, 3, 4, 5]), ("failed", [0, 6, 7]), ("pending", [8]), ("cut", [1])]
)
def test_a_state_selects_its_rows(reader, state, places):
    assert [row.id - 1 for row in reader.page(scope_id(reader), state=state).rows] == places


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
@pytest.mark.parametrize("text", ["", "a"])
def test_pages_follow_each_other_without_gaps_and_repetitions(reader, monkeypatch, limit, text):
    """A search that stops early continues behind the last request that it has seen."""
    monkeypatch.setattr(row_pages, "_SEARCH_CHUNK", 2)
    expected = [row.id for row in reader.page(scope_id(reader), text=text).rows]
    found, after = [], 0
    while after is not None:
        page = reader.page(scope_id(reader), after, limit, text=text, seconds=0.0)
        assert len(page.rows) <= limit
        found += [row.id for row in page.rows]
        after = page.next_id
    assert found == expected


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("sky IS", [0]),
        ("cannot help", [0]),
        ("100 %", [1]),
        ("“trees”", [1]),
        ('"quoted"', [2]),
        ("Ärger", [3]),
        ("no_under", [4]),
        ("invalid_prompt", [6, 7]),
        ("Odd", [6, 7]),
        ("which of the PLANETS", [6]),
        ("nowhere", []),
    ],
)
def test_a_text_is_found_in_answers_and_reasons(reader, text, places):
    assert find(reader, text) == places


def test_a_text_is_found_in_known_prompts(reader):
    def find_prompts(custom_ids, text):
        return {custom_ids[8]} if text == "sky" else set()

    assert find(reader, "sky", find_prompts=find_prompts) == [0, 8]


def test_a_row_is_found_by_its_number(reader):
    assert [reader.find_row(scope_id(reader), number) for number in (1, 9, 10)] == [1, 9, None]


def test_rows_are_numbered_within_their_scope(reader, ledger):
    """The requests of another Task lie between the rows of a Task, whose numbers begin with 1."""
    other = Ledger(ledger.path.parent, ScopeName("pipeline", "judge", "https://api.example.com/v1/"))
    for part in range(3):
        plan_created_job(ledger, f"later-{part}")
        plan_created_job(other, f"judged-{part}", f"also-judged-{part}")
    other.close()
    judge, first = sorted(reader.scopes(), key=lambda scope: scope.name.task)
    for scope, count in ((judge, 6), (first, 12)):
        rows = reader.page(scope.id).rows
        assert reader.number_rows(scope.id, rows) == list(range(1, count + 1))
        assert reader.number_rows(scope.id, rows[2::3]) == list(range(3, count + 1, 3))
    assert reader.number_rows(judge.id, []) == []


def test_each_change_of_the_ledger_changes_its_mark(reader, ledger):
    before = reader.change_mark()
    assert reader.change_mark() == before
    plan_created_job(ledger, "another-0")
    assert reader.change_mark() != before


def test_a_ledger_of_an_older_release_has_pages_too(tmp_path):
    write_old_ledger(tmp_path / "ledger")
    reader = RowReader(tmp_path / "ledger")
    for scope in reader.scopes():
        rows = reader.page(scope.id, limit=1_000).rows
        assert len([row for row in rows if row.state == "answered"]) == scope.answered
        assert len([row for row in rows if row.state == "failed"]) == scope.failed
        assert reader.page(scope.id, state="cut").rows == []
