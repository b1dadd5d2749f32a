"""What the README tells people to run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import API_KEY, ROOT
from distilabel.pipeline import Pipeline

EXAMPLES = ROOT / "examples"
BIN = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path, home: Path) -> str:
    """Runs a command as a user would, with a home directory of its own, and returns what it printed."""
    environment = os.environ | {"HOME": str(home), "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_demos_rows_are_worth_looking_at():
    """Sixty or more, and none twice."""
    rows = [json.loads(line)["instruction"] for line in (EXAMPLES / "instructions.jsonl").open(encoding="utf-8")]

    assert len(rows) == len(set(rows)) >= 60
    assert all(row.strip() for row in rows)


def test_the_yaml_runs_from_distilabels_command_line(sandbox, tmp_path):
    """By itself, against the server that OPENAI_BASE_URL names; `--param` sets the LLM's own fields."""
    run(
        BIN / "distilabel", "pipeline", "run", "--config", "examples/pipeline.yaml",
        "--param", "generate.llm.max_requests_per_job=40", "--param", "generate.llm.min_poll_interval=0.1",
        cwd=ROOT, home=tmp_path,
    )  # fmt: skip

    books = sandbox.books()
    assert sorted(batch["request_counts"]["total"] for batch in books.batches) == [24, 40, 64]
    assert set(books.billed.values()) == {1}
    assert books.sync == 0


def read_example(name: str) -> Pipeline:
    """The pipeline of an example in Python."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example.pipeline


def test_the_other_ways_to_run_run(sandbox, monkeypatch):
    """Streaming, and submitting with the Python to load with the YAML, and the other way round."""
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


def test_the_python_and_the_yaml_are_one_pipeline(sandbox, tmp_path):
    """Written out, both have the same steps, and neither the key."""
    written = []
    for number, pipeline in enumerate([read_example("pipeline"), Pipeline.from_yaml(EXAMPLES / "pipeline.yaml")]):
        path = tmp_path / f"{number}.yaml"
        pipeline.save(path, format="yaml")
        assert API_KEY not in path.read_text(encoding="utf-8")
        dump = yaml.safe_load(path.read_text(encoding="utf-8"))
        dump["pipeline"]["steps"][0]["step"].pop("data_files")
        written.append(dump)

    assert written[0] == written[1]
    assert written[0]["pipeline"]["steps"][1]["step"]["llm"]["max_requests_per_job"] == 50_000


def test_the_demo_shows_what_was_done(tmp_path):
    """It ends by itself, without a key, and leaves the dataset where it says."""
    told = run(sys.executable, EXAMPLES / "demo.py", cwd=tmp_path, home=tmp_path)

    assert "64 of 64 requests answered, 0 failed" in " ".join(told.split())
    assert "2 jobs with 128 requests answered the 64 rows of 2 Tasks; 0 requests were billed twice" in told
    assert (tmp_path / "demo-output" / "default").is_dir()
