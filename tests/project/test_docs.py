"""Run every code block of the documentation as a reader would, against the sandbox."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import openai
import orjson
import pytest
import yaml
from datasets import Dataset, DatasetDict, SplitInfo
from distilabel.distiset import Distiset
from distilabel.models.llms import LLM
from distilabel.pipeline import Pipeline
from distilabel.steps.generators import huggingface
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

import distilabel_openai_batch
from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine import calls
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.operations import doctor
from distilabel_openai_batch.plugin import base
from distilabel_openai_batch.sandbox import RequestFailure, Settings
from tests.support.commands import adopt_answer, run_command, submit_only
from tests.support.environment import ROOT

for extra in ("genai_prices", "vl_convert"):
    pytest.importorskip(extra, reason="the pages show the output of every extra")

# Usage of a single answer, in the size of thousands of answers.
MANY = {"prompt_tokens": 1_680_000, "completion_tokens": 920_000}

CLI = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```\w", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+""")
SAVED = re.compile(r"[Ss]ave this as `([\w.]+)`")
INSTRUCTIONS = ROOT / "examples" / "instructions.jsonl"

# Lines that the tests skip, each with the reason.
NOT_RUN = {
    "pip install .": "the package is installed",
    "pip install '.[sandbox]'": "the package is installed",
    "pip install '.[ray]'": "`make test-ray` runs with Ray installed",
    "export OPENAI_API_KEY=…": "the fixture `sandbox` sets a key",
    "export OPENAI_API_KEY=sk-…": "the fixture `sandbox` sets a key",
    "unset OPENAI_BASE_URL": "the script would call OpenAI",
    "distilabel-openai-batch serve": "the sandbox is running",
    """python -m distilabel_openai_batch.sandbox --settings '{"dialect": "azure"}'""": "the sandbox has this dialect",
    "make demo": "tests/project/test_examples.py runs the demo",
    "make test": "the command would run this test",
    "distilabel pipeline run --config examples/pipeline.yaml": "tests/project/test_examples.py runs it",
    "distilabel pipeline run --config examples/preferences.yaml": "tests/project/test_examples.py runs it",
    "python examples/preferences.py": "tests/project/test_examples.py runs it",
}

# Addresses of servers on the pages, which the sandbox's address replaces.
ADDRESSES = ("http://127.0.0.1:8000", "https://my-resource.openai.azure.com")

# The page about Ray: its Python is only compiled here. `make test-ray` runs it.
RAY = "ray.md"


@pytest.fixture
def desk(sandbox, tmp_path, monkeypatch) -> Path:
    """Return a reader's working directory, with the project's examples and a Hub of one dataset.

    The dataset has the split and the columns of `HuggingFaceH4/instruction-dataset`.
    """
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "instructions.jsonl").write_bytes(b"".join(INSTRUCTIONS.read_bytes().splitlines(keepends=True)[:5]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(PollSchedule, "interval", lambda self, age: 0.05)
    rows = [{"prompt": f"Say number {i}.", "completion": str(i), "meta": ""} for i in range(5)]
    hub = DatasetDict(test=Dataset.from_list(rows))
    from_files = huggingface.load_dataset

    def load_dataset(path: str, config: str | None = None, *, split: str = "train", **options):
        return hub[split] if "/" in path else from_files(path, config, split=split, **options)

    def dataset_infos(path: str):
        info = hub["test"].info.copy()
        info.splits = {"test": SplitInfo("test", num_examples=len(rows))}
        return {"default": info}

    monkeypatch.setattr(huggingface, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface, "get_dataset_infos", dataset_infos)
    return tmp_path


class Reader:
    """A reader who runs the code blocks of a page from top to bottom.

    Args:
        address: Base URL of the sandbox.
        monkeypatch: Restores the environment after the test.
    """

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._origin = address.removesuffix("/v1")
        self._monkeypatch = monkeypatch
        self._output = ""

    def read(self, page: Path) -> Document:
        """Return the page with an evaluator for each of its blocks."""
        languages: dict[str, Callable[[Example], None]] = {
            "python": self.python,
            "diff": self.diff,
            "yaml": self.yaml,
            "sh": self.shell,
            "console": self.console,
            "text": self.text,
            # A browser draws these.
            "mermaid": lambda block: None,
        }
        parsers = [CodeBlockParser(language, evaluate) for language, evaluate in languages.items()]
        return Document.parse(str(page), *parsers)

    def python(self, block: Example) -> None:
        """Run a block as a script that continues the earlier blocks; or save the block if the page says so."""
        before = block.document.text[: block.start].rpartition("```")[2]
        if saved := SAVED.search(before):
            Path(saved[1]).write_text(block.parsed, encoding="utf-8")
        elif Path(block.path).name == RAY:
            compile(block.parsed, block.path, "exec")
        else:
            block.namespace["__name__"] = "__main__"
            PythonEvaluator()(block)

    def diff(self, block: Example) -> None:
        """Run the Python after the change; the Python before compiles. In YAML both sides name an LLM."""
        lines = block.parsed.splitlines()
        before, after = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
        if "type_info:" in before:
            for side in (before, after):
                type_info = yaml.safe_load(side)["llm"]["type_info"]
                assert issubclass(getattr(importlib.import_module(type_info["module"]), type_info["name"]), LLM)
            return
        compile(before, block.path, "exec")
        block.namespace["__name__"] = "__main__"
        exec(compile(after, block.path, "exec"), block.namespace)

    def yaml(self, block: Example) -> None:
        """Run a pipeline."""
        Path("pipeline.yaml").write_text(block.parsed, encoding="utf-8")
        block.namespace[f"yaml_{block.line}"] = Pipeline.from_yaml("pipeline.yaml").run(use_cache=False)

    def shell(self, block: Example) -> None:
        """Run the lines of a block; exported variables stay set for later blocks."""
        lines = [line for line in block.parsed.splitlines() if line.partition("  #")[0].strip() not in NOT_RUN]
        script = "\n".join(lines)
        for address in ADDRESSES:
            script = script.replace(address, self._origin)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        command = ["bash", "-euc", f"{script}\nenv -0 >environment"]
        ran = subprocess.run(
            command, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=240, check=False
        )
        self._output = ran.stdout + ran.stderr
        assert ran.returncode == 0, self._output
        exported = dict(entry.partition("=")[::2] for entry in Path("environment").read_text().split("\0") if entry)
        for name in re.findall(r"\b([A-Z_]+)=", "".join(line for line in lines if line.startswith("export"))):
            self._monkeypatch.setenv(name, exported[name])

    def console(self, block: Example) -> None:
        """Run a command, and compare its output with the page, without line breaks."""
        command, _, shown = block.parsed.partition("\n")
        printed = run_command(*command.removeprefix("$ distilabel-openai-batch ").split()).output
        assert " ".join(shapes(printed)) == " ".join(shapes(shown))

    def text(self, block: Example) -> None:
        """Find each line of a block in the output of the last command."""
        printed = " ".join(shapes(self._output))
        for line in shapes(block.parsed):
            assert line in printed


def shapes(text: str) -> list[str]:
    """Return the lines of a text, with placeholders for ids, numbers, times and white space."""
    for pattern, shape in (
        (r"(batch_|file-)[0-9a-f]+", r"\1ID"),
        (r"\b[0-9a-f]{32}-\d+", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", "TIME"),
        (r"https?://127\S*", "ADDRESS"),
        (r"/\S*/ledger\.", "LEDGER."),
        (r"\d[\d,.]*", "N"),
        # A job without duration has no pace, and so no ETA.
        (r"(?m)(ETA N s|–)$", "ETA"),
    ):
        text = re.sub(pattern, shape, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def datasets_in(namespace: dict[str, object]) -> Iterator[Dataset]:
    for value in namespace.values():
        if isinstance(value, Distiset):
            yield from (value[name]["train"] for name in value)


@pytest.mark.parametrize("page", [page for page in PAGES if page != CLI], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_a_page_runs(page, sandbox, desk, monkeypatch):
    """Run from top to bottom: no pipeline returns a `None` answer, and no request is billed twice."""
    if page.name == "servers.md":
        sandbox.reset(Settings(dialect="azure"))
    if page.name == "failures.md":
        filtered = RequestFailure(contains="bomb", message="The prompt was filtered.", code="content_filter")
        sandbox.configure(failures=[filtered])
        # So wide that the log wraps no line.
        monkeypatch.setenv("COLUMNS", "500")
    if page.name == "costs.md":
        # `estimate` sends nothing, so OpenAI's address is safe.
        monkeypatch.delenv("OPENAI_BASE_URL")
        for task, model in (("generate", "gpt-4o-mini-2024-07-18"), ("judge", "gpt-4o-2024-08-06")):
            scope = ScopeName("preferences", task, "https://api.openai.com/v1/")
            adopt_answer(ledger_directory(None), scope, model, MANY, f"batch_{task}")
    document = Reader(sandbox.base_url, monkeypatch).read(page)
    blocks = list(document.examples())
    assert len(blocks) == len(BLOCK.findall(document.text)), "a block in a language without evaluator"
    for block in blocks:
        block.evaluate()
    for dataset in datasets_in(document.namespace):
        assert len(dataset)
        for column in {"generation", "ratings", "batch_id"} & set(dataset.column_names):
            assert None not in dataset[column]
    assert set(sandbox.books().billed.values()) <= {1}


def import_building() -> ModuleType:
    """Return `docs/building.py`, which stands in no package."""
    spec = importlib.util.spec_from_file_location("building", ROOT / "docs" / "building.py")
    building = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(building)
    return building


def test_the_reference_has_every_field_that_the_package_has():
    """Every class with fields is covered, and every field has a description."""
    building = import_building()
    page = building.CONFIGURATION.read_text(encoding="utf-8")
    for name in distilabel_openai_batch.__all__:
        model = getattr(distilabel_openai_batch, name)
        for field, about in getattr(model, "model_fields", {}).items():
            if building.is_ours(model, field):
                assert f"| `{field}` | " in page, f"{name}.{field}"
                assert about.description, f"{name}.{field}"


def test_the_reference_is_current():
    """The tables of fields in the repository equal the ones that `docs/building.py` writes."""
    building = import_building()
    page = building.CONFIGURATION.read_text(encoding="utf-8")
    assert page.count("<!-- end of fields -->") == len(re.findall("<!-- (?:inherited )?fields of ", page))
    assert building.with_tables(page) == page, "run `python docs/building.py`"


def test_the_site_builds_and_loads_nothing_from_other_hosts(tmp_path):
    """The build is strict, as in `make docs`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {page.parent.name: page.read_text(encoding="utf-8") for page in tmp_path.rglob("index.html")}
    assert {"resuming", "configuration", "examples", "benchmarks", "faq"} <= pages.keys()
    for page in pages.values():
        assert not LOADED.findall(page)
    assert "<!-- fields of" not in pages["configuration"]
    assert 'class="mermaid"' in pages["design"]


def test_the_recording_loads_nothing_from_other_hosts():
    """The picture refers to its own parts only."""
    picture = (ROOT / "docs" / "assets" / "recording.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"url\((.)", picture)) == {"#"}
    assert not re.search(r"href=|<script|<image", picture)


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    """Each relative link of a page names a file of the repository."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    built = {"examples.md", "benchmarks.md"}
    assert [link for link in links if link not in built and not (page.parent / link).exists()] == []


def test_each_skipped_line_is_on_a_page():
    """A line that left the pages leaves `NOT_RUN` too."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [line for line in NOT_RUN if line not in text] == []


QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(40)]
FAILS = RequestFailure(contains="number 3", code="bad_prompt", message="No threes, please.")


OTHERS = [[{"role": "user", "content": f"Say letter {i}."}] for i in range(20)]
# Replies to the confirmations of commands.
ANSWERS = {"cancel --all": "y\n", "forget preferences": "n\n"}
# Commands that print the JSON below another command's block.
JSON = {"jobs --look": "jobs --json", "failures": "failures --jsonl"}


def named(command: str) -> list[str]:
    """Return a command's words, with ids of existing batches."""
    words = command.split()
    if words[0] == "adopt":
        words[1] = make_foreign_batch()
    if words[0] == "show":
        words[1] = next(
            job.batch_id for job in LedgerReader(ledger_directory(None)).jobs() if 0 < job.answered < job.requests
        )
    return words


def ask(questions, **fields) -> None:
    calls.scope_memories.clear()
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **fields)
    llm.load()
    llm.generate(questions)


def make_foreign_batch() -> str:
    """Create a batch without this package, and return its id."""
    with openai.OpenAI() as theirs:
        body = {"model": "gpt-4o-mini"}
        lines = [
            {
                "custom_id": str(i),
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body | {"messages": messages},
            }
            for i, messages in enumerate(QUESTIONS)
        ]
        content = b"\n".join(map(orjson.dumps, lines))
        file = theirs.files.create(file=("theirs.jsonl", content), purpose="batch")
        batch = theirs.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return batch.id


def test_the_command_line_prints_what_its_page_shows(sandbox, desk, monkeypatch):
    """Run each command in turn, over runs in which the server rejects some requests."""
    monkeypatch.setattr(base, "_scope_name", lambda _, base_url: ScopeName("preferences", "generate", base_url))
    monkeypatch.setattr(doctor, "is_installed", lambda package: package != "ray")
    sandbox.reset(Settings(failures=[FAILS]))
    ask(QUESTIONS[:10])
    sandbox.configure(in_progress_seconds=600.0, validating_seconds=600.0)
    submit_only(QUESTIONS[10:], max_requests_per_job=20)

    def under_way() -> None:
        sandbox.configure(validating_seconds=0.0)

    def ended() -> None:
        sandbox.configure(in_progress_seconds=0.0)

    def collected() -> None:
        ask(QUESTIONS)

    def others_under_way() -> None:
        sandbox.configure(in_progress_seconds=600.0)
        submit_only(OTHERS, max_requests_per_job=10)

    def with_another_key() -> None:
        sandbox.configure(api_keys=["another"])

    before = {
        "jobs --look": under_way,
        "watch": ended,
        "failures": collected,
        "cancel": others_under_way,
        "adopt": ended,
        "doctor": with_another_key,
    }
    languages = ("console", "json")
    document = Document.parse(str(CLI), *(CodeBlockParser(language, lambda _: None) for language in languages))
    blocks = [block.parsed for block in document.examples()]
    assert len(blocks) == len(BLOCK.findall(document.text))
    command, printed = "", ""
    for block in blocks:
        if block.startswith("$ "):
            command, _, shown = block.removeprefix("$ distilabel-openai-batch ").partition("\n")
            for start, happens in before.items():
                if command.startswith(start):
                    happens()
            printed = run_command(*named(command), input=ANSWERS.get(command)).output
            # `watch` draws bars in terminals only.
            assert command == "watch" or set(shapes(printed)) == set(shapes(shown)), command
        elif command == "watch":
            assert shapes(printed)[-2:] == shapes(block)[-2:]
        else:
            found = run_command(*JSON[command].split()).output
            first = json.loads(found)[0] if found.startswith("[") else json.loads(found.splitlines()[0])
            assert list(json.loads(block)) == list(first), command
