"""A notebook, whose event loop is already running, against the sandbox."""

from __future__ import annotations

import nbclient
import nbformat

from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader

CELLS = [
    """
    from distilabel_openai_batch import OpenAIBatchLLM

    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
    llm.load()
    chats = [[{"role": "user", "content": f"Say number {i}."}] for i in range(3)]
    """,
    "first = llm.generate(chats)",
    "second = llm.generate_outputs(chats, num_generations=2)",
    """
    import asyncio

    third = await asyncio.gather(*(llm.agenerate(chat) for chat in chats))
    """,
    """
    assert [len(output["generations"]) for output in first + second + third] == [1] * 3 + [2] * 3 + [1] * 3
    assert first == third
    """,
    "samples = [llm.generate(chats[:1]) for _ in range(2)]",
    "samples = [llm.generate(chats[:1]) for _ in range(2)]",
]


def test_each_cell_submits_new_requests_only_and_shows_one_summary(sandbox, monkeypatch, tmp_path):
    """Two cells call the LLM, and a third awaits many calls at the same time, which the first cell made before.

    A cell is a run: two calls of one cell are two samples, and the same cell again reuses both.
    """
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JPY_SESSION_NAME", "folder/analysis.ipynb")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_dedent(cell)) for cell in CELLS])

    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [3, 3, 1]
    # The line of progress was updated in place: each cell that submits requests has one output.
    outputs = [cell.outputs for cell in notebook.cells[1:3]]
    assert [[output.output_type for output in cell] for cell in outputs] == [["display_data"]] * 2
    assert all(cell[0].data["text/plain"].startswith("🏁 3 of 3 requests answered") for cell in outputs)
    assert {entry.name.label for entry in LedgerReader(ledger_directory(None)).scopes()} == {"analysis.ipynb"}


def test_error_in_a_cell_is_its_message(sandbox, monkeypatch, tmp_path):
    """distilabel would print a traceback with all local variables, in a box."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("DISTILABEL_OPENAI_BATCH_TRACEBACK", raising=False)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_dedent(CELLS[0]))])

    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True).execute()

    [error] = [output for output in notebook.cells[0].outputs if output.output_type == "error"]
    assert error.ename == "MissingSettingError"
    assert [line.partition(":")[0] for line in error.traceback] == [
        "MissingSettingError",
        "(DISTILABEL_OPENAI_BATCH_TRACEBACK=1 shows the traceback.)",
    ]


def _dedent(cell: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in cell.strip("\n").splitlines())
