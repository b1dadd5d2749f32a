"""Executions of code at the top level: scripts, statements at a prompt, cells of a notebook."""

from __future__ import annotations

import sys
import types

import pytest

from distilabel_openai_batch.plugin.execution import current_execution


@pytest.fixture
def run(monkeypatch):
    """Return a function that executes source code at the top level of the main module, and returns its executions."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def execute(source: str) -> list[object]:
        main.__dict__.update(find=current_execution, found=[])
        exec(compile(source, "<stdin>", "exec"), main.__dict__)  # as the prompt does
        return main.__dict__["found"]

    return execute


CALLS = {
    "loop": "for _ in range(2): found.append(find())",
    "function": "def answer(): found.append(find())\nanswer(); answer()",
    "class body": "class A: found.append(find())\nclass B: found.append(find())",
    "comprehension": "found += [find() for _ in range(2)]",
    "thread": (
        "import threading\n"
        "for _ in range(2):\n"
        "    thread = threading.Thread(target=lambda: found.append(find()))\n"
        "    thread.start(); thread.join()"
    ),
    "event loop": (
        "import asyncio\n"
        "async def answer(): found.append(find())\n"
        "async def main(): await asyncio.gather(answer(), answer())\n"
        "asyncio.run(main())"
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_all_calls_of_a_statement_are_one_execution(run, name):
    first, second = run(CALLS[name])
    assert first is second is not None


@pytest.mark.parametrize("name", CALLS)
def test_the_same_statement_again_is_another_execution(run, name):
    first, again = run(CALLS[name])[0], run(CALLS[name])[0]
    assert first is not again


def test_each_cell_of_a_notebook_is_an_execution(run, monkeypatch):
    """IPython counts its cells; tasks that a cell leaves behind belong to the latest cell."""
    shell = types.SimpleNamespace(execution_count=1)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    first, second = run(CALLS["loop"])
    assert first is second
    shell.execution_count += 1
    assert current_execution() is not first


def test_imported_ipython_without_a_notebook_does_not_count(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    first, second = run(CALLS["loop"])
    assert first is second is not None


def test_a_step_of_a_pipeline_has_no_execution(run, monkeypatch):
    """A step is loaded once, and makes all its requests in one run."""
    monkeypatch.setenv("DISTILABEL_PIPELINE_NAME", "pipeline")
    assert run(CALLS["loop"]) == [None, None]
