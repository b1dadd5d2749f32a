"""Tests of row groups."""

from __future__ import annotations

import contextlib
import random

import anyio
import greenback
import pytest
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM
from distilabel_openai_batch.hooks.row_groups import RowGroups, process_side_by_side, split_into_row_groups
from tests.unit.hooks.test_scheduling import UsersGlobalTask


class Client:
    """A client that the tests need no server for."""

    add_failures = True

    @contextlib.asynccontextmanager
    async def session(self):
        yield

    def check_rows_by(self, check):
        """Make no submission, and so no check."""


class Waits(TextGeneration):
    """A Task whose groups wait for each other: the first group ends last."""

    def process(self, inputs):
        [row] = inputs
        drawn = random.random()
        greenback.await_(anyio.sleep(row["wait"]))
        if error := row.get("error"):
            raise error
        yield [row | {"drawn": drawn, "generation": "Yes.", "model_name": "model"}]


def process(rows: list[dict]) -> list[tuple[int, list[dict]]]:
    task = Waits(name="waits", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused"))
    task.load()
    finished = []
    anyio.run(
        process_side_by_side, task, Client(), [([row],) for row in rows], lambda *result: finished.append(result), "why"
    )
    return finished


@pytest.mark.parametrize(
    ("task", "rows", "sizes"),
    [(TextGeneration, 7, [3, 3, 1]), (TextGeneration, 3, [3]), (TextGeneration, 0, [0]), (UsersGlobalTask, 7, [7])],
)
def test_rows_are_cut_as_distilabel_cuts_them(llm, task, rows, sizes):
    """A group has `input_batch_size` rows, unless the Task is global by itself."""
    task = task(llm=llm, **({} if task is UsersGlobalTask else {"input_batch_size": 3}))

    groups = split_into_row_groups(task, ([{"instruction": f"{i}"} for i in range(rows)],))

    assert [len(group) for (group,) in groups] == sizes
    assert [row["instruction"] for (group,) in groups for row in group] == [f"{i}" for i in range(rows)]


def test_rows_of_several_predecessors_are_cut_alike(llm):
    rows = ([{"id": 1}, {"id": 2}], [{"id": 3}, {"id": 4}])
    groups = split_into_row_groups(TextGeneration(llm=llm, input_batch_size=1), rows)
    assert groups == [([{"id": 1}], [{"id": 3}]), ([{"id": 2}], [{"id": 4}])]


def test_groups_run_concurrently_and_are_delivered_when_done():
    finished = process([{"wait": 0.1}, {"wait": 0.0}])
    assert [index for index, _ in finished] == [1, 0]
    assert all(row["why"] is None for _, [row] in finished)


def test_each_group_draws_its_own_random_numbers_again():
    """The draws depend on the step's name and the group's number, not on the order of answers."""
    first = {index: row["drawn"] for index, [row] in process([{"wait": 0.05}, {"wait": 0.0}])}
    second = {index: row["drawn"] for index, [row] in process([{"wait": 0.0}, {"wait": 0.05}])}
    assert first == second
    assert first[0] != first[1]


def test_a_group_that_raises_gets_none_and_a_reason():
    finished = dict(process([{"wait": 0.0, "error": KeyError("lost")}, {"wait": 0.0}]))
    assert finished[0][0]["generation"] is None
    assert finished[0][0]["why"]["message"] == "The row was lost with its row group: KeyError('lost')."
    assert finished[1][0]["generation"] == "Yes."


def test_an_error_that_stops_the_pipeline_ends_all_groups():
    with pytest.raises(AuthenticationError, match="withdrawn"):
        process([{"wait": 0.0, "error": AuthenticationError("The key was withdrawn.")}, {"wait": 3_600.0}])


def test_an_error_that_stops_the_pipeline_ends_the_feed():
    """No group is started any more, though the feed could go on for ever."""
    task = Waits(name="waits", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused"))
    task.load()
    groups = RowGroups(task, Client(), lambda *_: None)

    async def feed(_session):
        groups.start(0, ([{"wait": 0.0, "error": AuthenticationError("The key was withdrawn.")}],))
        await anyio.sleep_forever()

    with pytest.raises(AuthenticationError, match="withdrawn"):
        anyio.run(groups.run, feed)


def test_an_error_of_the_feed_ends_the_groups():
    task = Waits(name="waits", llm=OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-unused"))
    task.load()
    finished = []
    groups = RowGroups(task, Client(), lambda *group: finished.append(group))

    async def feed(_session):
        groups.start(0, ([{"wait": 3_600.0}],))
        raise EOFError("The queue is gone.")

    with pytest.raises(EOFError, match="queue is gone"):
        anyio.run(groups.run, feed)
    assert not finished
