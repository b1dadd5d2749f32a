"""Packs: their form, and the way of requests into packs and out of them."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.api.outcomes import MISSING_RESULT, Answer, Failure, build_result_line
from distilabel_openai_batch.ledger import job_table, pack_table, packs, request_table
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.packs import (
    MIN_PACK,
    PACK_SIZE,
    FirstOccurrences,
    Pack,
    PackedNames,
    chunk_lengths,
    find_members,
)
from distilabel_openai_batch.ledger.row_pages import RowReader
from tests.unit.ledger.samples import SCOPE, make_names, make_shard, plan_created_job, plan_ended_job


def answer(text: str, tokens: tuple[int, int] = (5, 3)) -> Answer:
    return Answer(build_result_line("", {"model": "m", "choices": [{"message": {"content": text}}]}), tokens)


def answers(names: list[str]) -> dict[str, Answer]:
    return {name: answer(f"Answer {place}.", (place, 2)) for place, name in enumerate(names)}


def record(ledger: Ledger, job, outcomes) -> None:
    ledger.requests.record(ledger.requests.request_ids(job), outcomes)


def count_rows(ledger: Ledger, table: str = "requests") -> int:
    with ledger.connection.reading() as database:
        return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.mark.parametrize("name", make_names(3) + make_names(2, 17) + make_names(1, packs.MAX_OCCURRENCE))
def test_names_of_requests_survive_a_pack(name):
    names = PackedNames.of([name, "a-0"])
    [(digests, occurrences)] = names.cut(PACK_SIZE)
    pack = Pack(1_000, 1, False, False, None, digests, occurrences, None, None)
    assert names.custom_ids == pack.custom_ids() == [name]
    assert pack.custom_id(0) == name


@pytest.mark.parametrize(
    "name",
    [
        "a-0",
        "",
        *(f"{'a' * 32}{end}" for end in ("", "-", "-00", "-01", "-1 ", "-+1", "-1048576", "-1_0", "-٣", "-0-0")),
        f"{'A' * 32}-0",
        f"{'a ' * 16}-0",
        f"{'é' * 32}-0",
        f"{'a' * 31}g-0",
    ],
)
def test_other_names_enter_no_pack(name):
    """Two names of one digest would otherwise share the answer of one of them."""
    assert PackedNames.of([name]).custom_ids == []


PLAIN = make_names(3)


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        [],
        [*PLAIN, *make_names(2, 17)],
        [PLAIN[0], PLAIN[1].upper(), PLAIN[2]],
        [PLAIN[0], f"{PLAIN[1]}-0"],
        # Together these have the length and the ends of two plain names.
        [PLAIN[0][:-1], f"0{PLAIN[1]}"],
        [PLAIN[0] + PLAIN[1], ""],
        [PLAIN[0], f"-0{PLAIN[1][:30]}-0"],
        [PLAIN[0], f"{PLAIN[1][:10]}  {PLAIN[1][12:]}"],
        [PLAIN[0], f"{PLAIN[1][:10]}\n\n{PLAIN[1][12:]}"],
        [PLAIN[0], f"é{PLAIN[1][1:]}"],
        [PLAIN[0], f"{'g' * 32}-0"],
        [PLAIN[0], f"{PLAIN[1][:33]}1"],
    ],
)
def test_names_are_parsed_alike_alone_and_together(names):
    """Most names end with -0, and are parsed together."""
    each = [PackedNames.of([name]) for name in names]
    found = PackedNames.of(names)
    assert list(found.custom_ids) == [name for one in each for name in one.custom_ids]
    assert found.digests == b"".join(one.digests for one in each)
    numbers = [found.occurrence(index) for index in range(len(found))]
    assert numbers == [one.occurrence(0) for one in each if len(one)]


def test_a_selection_keeps_ids_names_and_tokens():
    names = [*make_names(5), *make_names(5, 1)]
    [(digests, occurrences)] = PackedNames.of(names).cut(PACK_SIZE)
    usages = [(place, 2 * place, 0, place % 2, 0) for place in range(10)]
    pack = Pack(3_000, 1, False, False, None, digests, occurrences, None, None).with_usage(zip(*usages, strict=True))
    part = pack.select([1, 4, 8]).select([1, 2])
    assert part.request_ids == [3_004, 3_008]
    assert part.custom_ids() == [names[4], names[8]]
    assert [part.tokens(index) for index in range(2)] == [usages[4], usages[8]]
    assert part.token_pairs() == [(4, 8), (8, 16)]
    assert [part.index_of(request_id) for request_id in (3_003, 3_004, 3_008, 3_009)] == [None, 0, 1, None]


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_chunks_separate_no_pack(limit):
    ids = [*range(3, 8), *range(1_000, 1_020), *range(2_990, 3_020)]
    lengths = list(chunk_lengths(ids, limit))
    assert sum(lengths) == len(ids)
    assert max(lengths) <= limit
    if limit == 1_000:
        assert lengths == [5, 20, 10, 20]


def test_members_are_found_without_an_index():
    [(blob, numbers)] = PackedNames.of([*make_names(4), *make_names(2, 3)]).cut(PACK_SIZE)
    pack = Pack(1_000, 1, True, False, None, blob, numbers, None, None)
    wanted = [make_names(4)[2], make_names(1, 3)[0], make_names(4, 1)[0], "a-0"]
    assert {name: index for name, _, index in find_members([pack], wanted)} == {wanted[0]: 2, wanted[1]: 4}


def test_a_large_job_is_kept_in_packs(ledger):
    names = make_names(2_150)
    job = plan_ended_job(ledger, *names)
    assert (count_rows(ledger), count_rows(ledger, "packs")) == (0, 3)
    assert list(ledger.requests.request_ids(job)) == names
    outcomes = answers(names)
    record(ledger, job, outcomes)
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    assert count_rows(ledger) == 0
    known = ledger.requests.look_up(names)
    assert {name: request.outcome for name, request in known.items()} == outcomes
    assert [known[name].outcome.tokens for name in names] == [(place, 2) for place in range(2_150)]
    reader = RowReader(ledger.path.parent)
    [scope] = reader.scopes()
    assert (scope.answered, scope.tokens_in) == (2_150, sum(range(2_150)))
    assert [entry.custom_id for entry in reader.answers(scope)] == names
    assert [reader.find_row(scope.id, number) for number in (1, 1_001, 2_150, 2_151)] == [1_000, 2_000, 3_149, None]


@pytest.mark.parametrize("count", [MIN_PACK - 1, PACK_SIZE + MIN_PACK - 1])
def test_few_requests_are_rows(ledger, count):
    plan_created_job(ledger, *make_names(count))
    assert count_rows(ledger) == MIN_PACK - 1


def test_requests_that_fail_leave_their_pack(ledger):
    names = make_names(300)
    job = plan_created_job(ledger, *names)
    record(ledger, job, {**answers(names), names[7]: Failure("Filtered.", 400, "content_filter")})
    assert count_rows(ledger) == 1
    assert isinstance(ledger.requests.look_up(names)[names[7]].outcome, Failure)
    ids = list(ledger.requests.request_ids(job))
    assert ids == names


def test_answers_of_a_server_that_counts_no_tokens_leave_their_pack(ledger):
    names = make_names(200)
    outcomes = {name: answer("No usage.", (0, 0)) for name in names}
    record(ledger, plan_created_job(ledger, *names), outcomes)
    ledger.row_failures.record_cut(names[:3])
    assert count_rows(ledger) == 3
    assert {name: request.outcome for name, request in ledger.requests.look_up(names).items()} == outcomes


@pytest.mark.parametrize("details", [(2**31, 0, 0), (0, 0, 2**40)])
def test_an_answer_with_senseless_token_counts_is_a_row(ledger, details):
    names = make_names(200)
    outcomes = answers(names)
    outcomes[names[4]].token_details = details
    record(ledger, plan_created_job(ledger, *names), outcomes)
    assert count_rows(ledger) == 1
    assert {name: request.outcome for name, request in ledger.requests.look_up(names).items()} == outcomes


def test_a_part_of_the_outcomes_gives_up_the_pack(ledger):
    """Some servers write the output file while the batch is in progress."""
    names = make_names(300)
    job = plan_created_job(ledger, *names)
    outcomes = answers(names)
    record(ledger, job, {name: outcomes[name] for name in names[:100]})
    record(ledger, job, outcomes)
    assert (count_rows(ledger), count_rows(ledger, "packs")) == (300, 0)
    assert {name: request.outcome for name, request in ledger.requests.look_up(names).items()} == outcomes


def test_a_recorded_answer_of_a_pack_is_final(ledger):
    names = make_names(200)
    job = plan_created_job(ledger, *names)
    outcomes = answers(names)
    record(ledger, job, outcomes)
    record(ledger, job, {name: answer("Another answer.") for name in names})
    assert {name: request.outcome for name, request in ledger.requests.look_up(names).items()} == outcomes


def test_a_request_of_a_dropped_job_is_free(ledger):
    names = make_names(200)
    ledger.jobs.mark_dropped(plan_created_job(ledger, *names), "lost")
    assert ledger.requests.look_up(names) == {}
    assert len(ledger.requests.find_dropped(names)) == 200
    job = plan_created_job(ledger, *names[:150])
    assert sorted(ledger.requests.request_ids(job)) == sorted(names[:150])


def test_recorded_failures_of_a_dropped_job_keep_its_requests_free(ledger):
    """A request that another job holds meanwhile stays pending."""
    names = make_names(200)
    ledger.jobs.mark_dropped(plan_created_job(ledger, *names), "lost")
    failures = ledger.requests.find_dropped(names)
    held = ledger.requests.request_ids(plan_created_job(ledger, *names[:50]))
    ledger.requests.fail_dropped(failures)
    outcomes = {name: request.outcome for name, request in ledger.requests.look_up(names).items()}
    assert outcomes == {name: None if name in held else failures[name] for name in names}
    assert ledger.requests.find_dropped(names) == {}
    later = ledger.requests.request_ids(plan_created_job(ledger, *names))
    assert sorted([*held, *later]) == sorted(names)


@pytest.mark.parametrize("delivered", [3, 199])
def test_a_part_of_a_pack_may_be_delivered(ledger, delivered):
    names = make_names(200)
    job = plan_created_job(ledger, *names)
    record(ledger, job, answers(names))
    ledger.requests.mark_delivered(names[:delivered], 1.0)
    assert [ledger.requests.next_occurrence(name[:32]) for name in (names[0], names[-1])] == [1, 0]
    assert count_rows(ledger) == min(delivered, 200 - delivered)
    assert len(ledger.requests.look_up(names)) == 200


def test_a_pack_that_a_run_delivered_in_pieces_stays_whole(ledger, monkeypatch):
    """The pieces may overlap, and another chunk may have the rest."""
    monkeypatch.setattr(pack_table, "_CHUNK", 90)
    names = make_names(250)
    record(ledger, plan_created_job(ledger, *names), answers(names))
    ledger.requests.mark_delivered([*names[100:], *names[:120], *names[:3]], 1.0)
    assert (count_rows(ledger), count_rows(ledger, "packs")) == (0, 1)
    assert [ledger.requests.next_occurrence(name[:32]) for name in (names[0], names[-1])] == [1, 1]


def test_repeated_names_deliver_no_other_request_of_their_pack(ledger):
    names = make_names(200)
    record(ledger, plan_created_job(ledger, *names), answers(names))
    ledger.requests.mark_delivered(names[:2] * 100, 1.0)
    assert [ledger.requests.next_occurrence(name[:32]) for name in (names[0], names[-1])] == [1, 0]


@pytest.mark.parametrize("chunk", [7, 5_000])
def test_a_plan_claims_what_no_pack_and_no_row_has(ledger, monkeypatch, chunk):
    """The plan keeps the order of the requests."""
    monkeypatch.setattr(request_table, "_CHUNK", chunk)
    names = make_names(600)
    ledger.jobs.mark_dropped(plan_created_job(ledger, *names[450:]), "lost")
    plan_created_job(ledger, *names[100:300])
    plan_created_job(ledger, *names[:20], "a-0")
    asked = [*names[:450], "a-0", "b-0", *names[450:]]
    job, claimed = ledger.jobs.plan(make_shard(*asked))
    assert claimed == [*names[20:100], *names[300:450], "b-0", *names[450:]]
    ids = ledger.requests.request_ids(job)
    assert list(ids) == sorted(claimed, key=ids.__getitem__)
    assert [name for name in ids if name in names[:450]] == [*names[20:100], *names[300:450]]
    known = ledger.requests.look_up(asked)
    assert [name for name, request in known.items() if request.job == job.id and name not in claimed] == []
    assert known.keys() == {*asked}


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_rows_are_found_among_the_packs_of_a_scope(ledger, rows):
    """Few rows are compared with all requests, many rows are searched for each request."""
    names = make_names(300)
    outcomes = answers(names) | dict.fromkeys(names[10 : 10 + rows], Failure("Bad.", 400, "bad"))
    record(ledger, plan_created_job(ledger, *names), outcomes)
    unknown = make_names(10, start=900)
    for asked in (names, [*names[9:13], *unknown], unknown, names[10:12]):
        known = ledger.requests.look_up(asked)
        assert {name: request.outcome for name, request in known.items()} == {
            name: outcomes[name] for name in asked if name in outcomes
        }


def test_another_session_sees_new_packs(ledger, open_ledger):
    other = open_ledger()
    names = make_names(400)
    assert other.requests.look_up(names[:200]) == {}
    record(ledger, job := plan_ended_job(ledger, *names[:200]), answers(names[:200]))
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    assert len(other.requests.look_up(names)) == 200
    ledger.requests.forget()
    assert other.requests.look_up(names) == {}


def test_a_plan_that_was_rolled_back_leaves_no_trace(ledger, monkeypatch):
    """The next plan gets the same ids for its packs: packs that are not found would be submitted twice."""
    names = make_names(6_000)
    with monkeypatch.context() as patch:
        patch.setattr(job_table, "insert_outline", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            plan_created_job(ledger, *names)
    assert ledger.requests.look_up(names) == {}
    others = make_names(300, start=6_000)
    plan_created_job(ledger, *others)
    assert ledger.requests.look_up([*names, *others]).keys() == {*others}
    plan_created_job(ledger, *names, *others)
    assert len(ledger.requests.look_up([*names, *others])) == 6_300
    assert count_rows(ledger, "packs") == 7


def test_forgotten_packs_free_their_bytes(ledger):
    names = make_names(300)
    record(ledger, job := plan_ended_job(ledger, *names), answers(names))
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    open_names = make_names(200, start=1_000)
    plan_created_job(ledger, *open_names)
    assert ledger.requests.forget() == 300
    assert count_rows(ledger, "answer_parts") == 0
    assert ledger.requests.look_up(names) == {}
    assert len(ledger.requests.look_up(open_names)) == 200
    assert plan_created_job(ledger, *names)
    assert len(ledger.requests.look_up(names)) == 300


@pytest.mark.parametrize("is_compressed", [False, True])
def test_lines_of_any_length_are_read_again(tmp_path, is_compressed):
    names = make_names(150)
    texts = ["x" * length for length in [0, 1, 70_000, 5] * 37 + [0, 200_000]]
    outcomes = {name: answer(text) for name, text in zip(names, texts, strict=True)}
    ledger = Ledger(tmp_path, SCOPE, is_compressed=is_compressed)
    record(ledger, plan_created_job(ledger, *names), outcomes)
    ledger.close()
    ledger = Ledger(tmp_path, SCOPE)
    known = ledger.requests.look_up(random.Random(2).sample(names, 150))
    ledger.close()
    assert {name: request.outcome.line for name, request in known.items()} == {
        name: outcome.line for name, outcome in outcomes.items()
    }
    assert ((tmp_path / "ledger.sqlite3").stat().st_size < 1_000_000) == is_compressed


def test_a_lost_part_is_a_failure_and_no_crash(ledger):
    names = make_names(200)
    record(ledger, plan_created_job(ledger, *names), answers(names))
    with ledger.connection.transaction() as database:
        database.execute("DELETE FROM answer_parts")
    assert all(isinstance(request.outcome, Failure) for request in ledger.requests.look_up(names).values())
    reader = RowReader(ledger.path.parent)
    assert list(reader.answers(reader.scopes()[0])) == []
    assert reader.page(1).rows[0].answer is None


def test_numbers_are_little_endian_on_any_machine(monkeypatch):
    assert packs.pack_numbers(array("I", [1, 256])) == b"\1\0\0\0\0\1\0\0"
    other = {"little": "big", "big": "little"}[packs.sys.byteorder]
    monkeypatch.setattr(packs.sys, "byteorder", other)
    blob = packs.pack_numbers(array("I", [1, 256]))
    assert list(packs.unpack_numbers("I", blob)) == [1, 256]


def first_occurrences(names: Sequence[str]) -> FirstOccurrences:
    return FirstOccurrences(b"".join(bytes.fromhex(name[:32]) for name in names))


def first_names(count: int, start: int = 0) -> FirstOccurrences:
    return first_occurrences(make_names(count, start=start))


def answer_job(ledger: Ledger, count: int, start: int = 0) -> dict[str, Answer]:
    """Plan a job of requests, answer all, and return the answers."""
    names = make_names(count, start=start)
    outcomes = {name: answer(f"Answer {name}.", (place, 2)) for place, name in enumerate(names)}
    job = plan_ended_job(ledger, *names)
    record(ledger, job, outcomes)
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    return outcomes


@pytest.mark.parametrize(("start", "count"), [(0, 2_600), (0, 1_000), (950, 100), (1_000, 1), (2_599, 1), (2_150, 450)])
def test_answers_are_found_at_once_in_the_order_of_the_packs(ledger, start, count):
    """The requests may be those of several jobs, and begin within a pack."""
    outcomes = answer_job(ledger, 2_150) | answer_job(ledger, 450, 2_150)
    found = ledger.requests.find_answers(first_names(count, start))
    assert found is not None
    answers, jobs = found
    assert answers == [*outcomes.values()][start : start + count]
    assert [each.tokens for each in answers] == [each.tokens for each in [*outcomes.values()][start : start + count]]
    assert jobs == {known.job for known in ledger.requests.look_up(make_names(count, start=start)).values()}


@pytest.mark.parametrize(("left", "is_found"), [(1, True), (30, True), (31, False)])
def test_answers_that_left_their_pack_are_found_at_once_if_they_are_few(ledger, left, is_found):
    outcomes = answer_job(ledger, 300)
    # A delivery of single requests gives these rows of their own.
    ledger.requests.mark_delivered(make_names(300)[100 : 100 + left], began_at=1.0)
    assert count_rows(ledger) == left
    found = ledger.requests.find_answers(first_names(300))
    assert (found is not None) is is_found
    if found:
        assert found[0] == [*outcomes.values()]


@pytest.mark.parametrize("place", [0, 150, 299])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE requests SET state = 'failed', error = 'No.' WHERE custom_id = ?",
        "UPDATE requests SET state = 'asked' WHERE custom_id = ?",
        "DELETE FROM answers WHERE request = (SELECT id FROM requests WHERE custom_id = ?)",
        "DELETE FROM requests WHERE custom_id = ?",
    ],
    ids=["failed", "pending", "without its line", "unknown"],
)
def test_no_answers_are_found_at_once_if_one_is_missing(ledger, place, change):
    answer_job(ledger, 300)
    name = make_names(300)[place]
    ledger.requests.mark_delivered([name], began_at=1.0)
    assert ledger.requests.find_answers(first_names(300)) is not None
    with ledger.connection.transaction() as database:
        database.execute(change, (name,))
    assert ledger.requests.find_answers(first_names(300)) is None


def test_no_answers_are_found_at_once_without_the_lines_of_a_pack(ledger):
    answer_job(ledger, 300)
    with ledger.connection.transaction() as database:
        database.execute("DELETE FROM answer_parts")
    assert ledger.requests.find_answers(first_names(300)) is None


def test_no_answers_of_a_pending_pack_are_found(ledger):
    assert not ledger.requests.has_answered_packs()
    plan_created_job(ledger, *make_names(300))
    assert not ledger.requests.has_answered_packs()
    assert ledger.requests.find_answers(first_names(300)) is None


def test_requests_in_another_order_are_not_found_at_once(ledger):
    answer_job(ledger, 300)
    assert ledger.requests.find_answers(first_occurrences(make_names(300)[::-1])) is None
    assert ledger.requests.has_answered_packs()


def test_answers_of_another_scope_or_another_occurrence_are_not_found(ledger, open_ledger):
    answer_job(ledger, 300)
    other = open_ledger(replace(SCOPE, task="another"))
    assert not other.requests.has_answered_packs()
    assert other.requests.find_answers(first_names(300)) is None
    names = make_names(300, 1, start=300)
    job = plan_ended_job(ledger, *names)
    record(ledger, job, answers(names))
    ledger.jobs.mark_collected(job, MISSING_RESULT)
    assert ledger.requests.find_answers(first_names(300, 300)) is None


@settings(max_examples=60)
@given(st.data())
def test_answers_that_are_found_at_once_equal_those_of_a_look_up(tmp_path_factory, data):
    """Any requests may be unanswered, fail, leave their pack, or be asked in another order."""
    with closing(Ledger(tmp_path_factory.mktemp("ledger"), SCOPE)) as ledger:
        count = data.draw(st.integers(100, 250))
        names = make_names(count)
        job = plan_ended_job(ledger, *names)
        places = st.sets(st.integers(0, count - 1), max_size=12)
        missing, failed = data.draw(places), data.draw(places)
        outcomes = {
            name: Failure("No.", 400) if place in failed else answer(name)
            for place, name in enumerate(names)
            if place not in missing
        }
        record(ledger, job, outcomes)
        ledger.jobs.mark_collected(job, MISSING_RESULT)
        delivered = [names[place] for place in data.draw(places) - missing - failed]
        ledger.requests.mark_delivered(delivered, began_at=1.0)
        start = data.draw(st.integers(0, count - 1))
        wanted = make_names(data.draw(st.integers(1, count + 20)), start=start)
        if data.draw(st.booleans()):
            wanted = data.draw(st.permutations(wanted))
        found = ledger.requests.find_answers(first_occurrences(wanted))
        known = ledger.requests.look_up(wanted)
        if found:
            assert found[0] == [known[name].outcome for name in wanted]
            assert found[1] == {known[name].job for name in wanted}
