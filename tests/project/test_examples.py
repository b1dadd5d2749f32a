"""Run the examples and the demo."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from distilabel.distiset import Distiset
from distilabel.pipeline import Pipeline

from tests.support.environment import API_KEY, ROOT

EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, home: Path) -> str:
    """Run a command as a user would, with its own home directory, and return its output."""
    environment = os.environ | {"HOME": str(home), "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_demo_has_sixty_distinct_rows():
    """No row is empty, and no row occurs twice."""
    rows = [json.loads(line)["instruction"] for line in (EXAMPLES / "instructions.jsonl").open(encoding="utf-8")]

    assert len(rows) == len(set(rows)) >= 60
    assert all(row.strip() for row in rows)


def test_the_yaml_runs_from_distilabels_command_line(sandbox, tmp_path):
    """OPENAI_BASE_URL names the server, and `--param` sets the LLM's own fields."""
    run(
        BIN / "distilabel", "pipeline", "run", "--config", "examples/pipeline.yaml",
        "--param", "generate.llm.max_requests_per_job=40", "--param", "generate.llm.min_poll_interval=0.1",
        cwd=ROOT, home=tmp_path,
    )  # fmt: skip

    books = sandbox.books()
    assert sorted(batch["request_counts"]["total"] for batch in books.batches) == [24, 40, 64]
    assert set(books.billed.values()) == {1}
    assert books.sync == 0


def import_example(name: str) -> ModuleType:
    """Import an example without running its pipeline."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    # pydantic and pickle look up the example's classes here.
    sys.modules[spec.name] = example
    spec.loader.exec_module(example)
    return example


def read_example(name: str) -> Pipeline:
    """Return the pipeline of an example in Python."""
    return import_example(name).pipeline


def test_the_examples_of_streaming_submitting_and_loading_run(sandbox, monkeypatch):
    """Submissions of the Python are loaded by the YAML, and the other way round."""
    monkeypatch.chdir(ROOT)
    names = ("stream", "submit", "load")
    both = {name: (read_example(name), Pipeline.from_yaml(EXAMPLES / f"{name}.yaml")) for name in names}
    for pipeline in both["stream"]:
        rows = pipeline.run(use_cache=False)["default"]["train"]
        assert len(rows) == 64
        assert all(rows["generation"])
    assert len(sandbox.books().batches) == 4
    for submit, load in zip(both["submit"], reversed(both["load"]), strict=True):
        assert submit.run(use_cache=False)["default"]["train"]["requests"] == [64]
        rows = load.run(use_cache=False)["default"]["train"]
        assert len(rows) == 64
        assert all(rows["generation"])
        assert set(rows["batch_failure"]) == {None}
    assert len(sandbox.books().batches) == 5


@dataclass(frozen=True)
class Example:
    """The numbers in an example's docstring.

    Attributes:
        requests: Requests for each row.
        jobs: Jobs for up to 50,000 rows.
        columns: Columns without an empty value.
    """

    requests: int
    jobs: int
    columns: tuple[str, ...]


EXAMPLES_BY_NAME = {
    "preprocess": Example(1, 1, ("instruction", "rewritten")),
    "preferences": Example(3, 3, ("prompt", "chosen", "chosen_rating", "chosen_model", "rejected", "rejected_rating")),
    "evaluate": Example(2, 2, ("generation", "evaluated_model", "feedback", "result", "judge_model")),
    "weekly": Example(1, 1, ("instruction", "paraphrases", "model_name")),
    "evol": Example(3, 3, ("instruction", "evolved_instruction", "answer")),
    "structured": Example(1, 1, ("instruction", "label")),
}


def run_over(pipeline: Pipeline, rows: Path) -> Distiset:
    """Run a pipeline over a file's rows, with a short poll interval."""
    steps = [pipeline.dag.get_step(name)["step"] for name in pipeline.dag]
    quick = {step.name: {"llm": {"min_poll_interval": 0.1}} for step in steps if hasattr(step, "llm")}
    return pipeline.run(parameters={"load": {"data_files": str(rows)}, **quick}, use_cache=False)


def rows_of(distiset: Distiset) -> list[dict]:
    return distiset["default"]["train"].to_list()


def show(example: ModuleType, distiset: Distiset) -> None:
    """Run the lines of an example after `pipeline.run`."""
    tree = ast.parse(Path(example.__file__).read_text(encoding="utf-8"))
    shows = ast.Module(tree.body[-1].body[1:], type_ignores=[])
    exec(compile(shows, example.__file__, "exec"), vars(example) | {"distiset": distiset})


def texts(value: object) -> Iterator[object]:
    """Yield the texts of a column's value."""
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    else:
        yield value


def some_rows(path: Path, count: int) -> Path:
    """Write the first rows of the examples to a file, and return its path."""
    lines = (EXAMPLES / "instructions.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:count]), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", EXAMPLES_BY_NAME)
def test_each_example_matches_its_docstring(name, sandbox, tmp_path, capsys):
    """The YAML then returns the same rows, and submits nothing."""
    example, path = EXAMPLES_BY_NAME[name], some_rows(tmp_path / "rows.jsonl", 5)
    program = import_example(name)
    distiset = run_over(program.pipeline, path)
    capsys.readouterr()
    show(program, distiset)
    assert capsys.readouterr().out
    rows = rows_of(distiset)
    assert len(rows) == 5
    for row in rows:
        assert all(all(texts(row[column])) for column in example.columns), row
    assert rows_of(run_over(Pipeline.from_yaml(EXAMPLES / f"{name}.yaml"), path)) == rows

    books = sandbox.books()
    assert len(books.batches) == example.jobs
    assert sum(books.billed.values()) == len(rows) * example.requests
    assert set(books.billed.values()) == {1}
    assert books.sync == 0


def test_the_weekly_example_submits_only_new_rows(sandbox, tmp_path):
    """Three further rows are three requests; the first rows equal the rows of the week before."""
    first = rows_of(run_over(read_example("weekly"), some_rows(tmp_path / "rows.jsonl", 4)))
    second = rows_of(run_over(read_example("weekly"), some_rows(tmp_path / "rows.jsonl", 7)))

    assert [batch["request_counts"]["total"] for batch in sandbox.books().batches] == [4, 3]
    assert second[:4] == first
    assert all(all(texts(row["paraphrases"])) for row in second)


@pytest.mark.parametrize("name", ["pipeline", "stream", "submit", "load", *EXAMPLES_BY_NAME])
def test_the_python_and_the_yaml_are_one_pipeline(name, sandbox, tmp_path):
    """Both dumps have the same steps, and no key."""
    written = []
    for number, pipeline in enumerate([read_example(name), Pipeline.from_yaml(EXAMPLES / f"{name}.yaml")]):
        path = tmp_path / f"{number}.yaml"
        pipeline.save(path, format="yaml")
        assert API_KEY not in path.read_text(encoding="utf-8")
        dump = yaml.safe_load(path.read_text(encoding="utf-8"))
        for file in ("data_files", "data"):
            dump["pipeline"]["steps"][0]["step"].pop(file, None)
        written.append(dump)

    assert written[0] == written[1]
    assert "max_requests_per_job: " in path.read_text(encoding="utf-8")


def test_the_examples_are_listed():
    """The README links both files of each example."""
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in {path.stem for path in EXAMPLES.glob("*.yaml")}:
        assert f"]({name}.py)" in listed, name
        assert f"]({name}.yaml)" in listed, name


def test_the_demo_prints_rows_and_billing(tmp_path):
    """The demo ends without a key, and saves the dataset at the printed path."""
    output = run(sys.executable, EXAMPLES / "demo.py", cwd=tmp_path, home=tmp_path)

    assert "64 of 64 requests answered, 0 failed" in " ".join(output.split())
    assert "2 jobs with 128 requests answered the 64 rows of 2 Tasks; 0 requests were billed twice" in output
    assert (tmp_path / "demo-output" / "default").is_dir()
