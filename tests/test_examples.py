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


def test_the_python_and_the_yaml_are_one_pipeline(sandbox, tmp_path):
    """Written out, both have the same steps, and neither the key."""
    spec = importlib.util.spec_from_file_location("example_pipeline", EXAMPLES / "pipeline.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    written = []
    for number, pipeline in enumerate([example.pipeline, Pipeline.from_yaml(EXAMPLES / "pipeline.yaml")]):
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
