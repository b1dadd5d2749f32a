"""A whole pipeline in a terminal: bars while it runs, a summary at its end, and a log that works afterwards."""

from __future__ import annotations

import logging
import sys

from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.display.live import PROGRESS_ENV_NAME
from distilabel_openai_batch.sandbox import RequestFailure
from tests.support.terminal import Terminal, screen, strip_escapes

ROWS = [{"instruction": f"Say number {number}."} for number in range(6)]


def llm() -> OpenAIBatchLLM:
    return OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)


def two_tasks(cache_dir) -> Pipeline:
    with Pipeline(name="shown", cache_dir=cache_dir) as pipeline:
        generate = TextGeneration(name="generate", llm=llm())
        judge = TextGeneration(
            name="judge",
            llm=llm(),
            input_mappings={"instruction": "generation"},
            output_mappings={"generation": "verdict", "model_name": "judged_by"},
        )
        LoadDataFromDicts(data=ROWS) >> generate >> judge
    return pipeline


def test_a_pipeline_in_a_terminal_shows_its_tasks_and_ends_with_a_summary(sandbox, tmp_path, monkeypatch, capfd):
    """The numbers come from the processes of the steps; afterwards another call of the process logs as before."""
    failure = RequestFailure(contains="Say number 3.", status=400, message="Odd.", code="invalid_prompt")
    sandbox.configure(in_progress_seconds=1.0, failures=[failure])
    for name in ("CI", PROGRESS_ENV_NAME):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal.file)
        distiset = two_tasks(tmp_path).run(use_cache=False)
    written = terminal.close()

    assert len(distiset["default"]["train"]) == 6
    drawn = strip_escapes(written)
    assert "judge" in drawn
    assert "all Tasks" in drawn
    lines = screen(written)
    assert not [line for line in lines if "━" in line]
    place = lines.index("shown: 6 rows in, 6 in the dataset")
    generate, judge, total = (" ".join(line.split()) for line in lines[place + 2 : place + 5])
    assert generate.startswith("generate 6 → 6 5/6 1 1 ")
    assert judge.startswith("judge 6 → 6 ")
    assert total.startswith("all ")
    assert "Failed in generate: 1 × 400 invalid_prompt" in lines
    assert [line for line in lines if line.startswith(f"Dataset: {tmp_path}")]
    assert [line for line in lines if line.startswith("Next: distilabel-openai-batch failures ")]

    assert (root.handlers, root.level) == before
    sandbox.configure(in_progress_seconds=0.0)
    script = llm()
    script.load()
    script.generate([[{"role": "user", "content": "Say hello."}]])
    assert "Logging error" not in capfd.readouterr().err
