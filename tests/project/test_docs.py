"""Run every code block of the documentation as a reader would, against the sandbox."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
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
from distilabel_openai_batch.cli import app
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.ledger.files import ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.operations import doctor
from distilabel_openai_batch.plugin import base
from distilabel_openai_batch.pricing import prices
from distilabel_openai_batch.sandbox import RequestFailure, Sandbox, Settings
from tests.support.commands import adopt_answer, run_command, submit_only
from tests.support.environment import ROOT, load_as_new_process

for extra in ("genai_prices", "vl_convert"):
    pytest.importorskip(extra, reason="the pages show the output of every extra")

# Usage of an answer as large as thousands of answers, so that the prices on the page are not zero.
LARGE_USAGE = {"prompt_tokens": 1_680_000, "completion_tokens": 920_000}

# The last release of genai-prices for Python 3.10 is older than some models in the documentation.
LACKS_MODELS = importlib.metadata.version("genai-prices").startswith("0.1.")
OWN_PRICES = {"gpt-6.1-terra": {"input": 0.5, "output": 2.5}}

CLI_PAGE = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK_START = re.compile(r"^ *```\w", re.MULTILINE)
EXTERNAL_RESOURCE = re.compile(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+""")
SAVED_FILE = re.compile(r"[Ss]ave this as `([\w.]+)`")
EXAMPLES = ROOT / "examples"
INSTRUCTIONS = EXAMPLES / "instructions.jsonl"
REPOSITORY = re.search('^Homepage = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]

# Lines that the tests skip, each with the reason.
SKIPPED_LINES = {
    f"pip install 'distilabel-openai-batch @ git+{REPOSITORY}'": "the package is installed",
    f"pip install 'distilabel-openai-batch[sandbox] @ git+{REPOSITORY}'": "the package is installed",
    "pip install '.[ray]'": "`make test-ray` runs with Ray installed",
    "export OPENAI_API_KEY=…": "the fixture `sandbox` sets a key",
    "export OPENAI_API_KEY=sk-…": "the fixture `sandbox` sets a key",
    "unset OPENAI_BASE_URL": "the script would call OpenAI",
    "distilabel-openai-batch serve": "the sandbox is running",
    "distilabel-openai-batch serve --dialect azure": "the sandbox has this dialect",
    "make demo": "tests/project/test_examples.py runs the demo",
    "make test": "the command would run this test",
    "distilabel pipeline run --config pipeline.yaml": "tests/project/test_examples.py runs such a file",
    "distilabel pipeline run --config examples/preferences.yaml": "tests/project/test_examples.py runs it",
    "python examples/preferences.py": "tests/project/test_examples.py runs it",
}

# Addresses of servers on the pages, which the sandbox's address replaces.
SERVER_ADDRESSES = ("http://127.0.0.1:8000", "https://my-resource.openai.azure.com")

# Pages whose code blocks read the project's examples, as the pages say.
PAGES_IN_A_CLONE = (EXAMPLES / "README.md", ROOT / "docs" / "costs.md")

# Page whose Python is only compiled here; `make test-ray` runs the code.
RAY_PAGE = "ray.md"


@pytest.fixture(autouse=True)
def log_level():
    """Restore the level that a page's code gives to distilabel's logger."""
    logger = logging.getLogger("distilabel")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def working_directory(sandbox, tmp_path, monkeypatch) -> Path:
    """Return a working directory outside a clone, and replace the Hub by one dataset.

    The dataset has the split and the columns of `HuggingFaceH4/instruction-dataset`.
    """
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


class PageRunner:
    """Runner of the code blocks of a page, from top to bottom.

    Args:
        address: Base URL of the sandbox.
        monkeypatch: Restores the environment after the test.
    """

    def __init__(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._origin = address.removesuffix("/v1")
        self._monkeypatch = monkeypatch
        self._output = ""

    def parse(self, page: Path) -> Document:
        """Return the page with an evaluator for each of its blocks."""
        languages: dict[str, Callable[[Example], None]] = {
            "python": self.python,
            "diff": self.diff,
            "yaml": self.yaml,
            "sh": self.shell,
            "console": self.console,
            "text": self.text,
            # Browsers draw diagrams.
            "mermaid": lambda block: None,
        }
        parsers = [CodeBlockParser(language, evaluate) for language, evaluate in languages.items()]
        return Document.parse(str(page), *parsers)

    def python(self, block: Example) -> None:
        """Run a block as a script that continues the earlier blocks; or save the block if the page says so."""
        before = block.document.text[: block.start].rpartition("```")[2]
        if saved := SAVED_FILE.search(before):
            Path(saved[1]).write_text(block.parsed, encoding="utf-8")
        elif Path(block.path).name == RAY_PAGE:
            compile(block.parsed, block.path, "exec")
        else:
            block.namespace["__name__"] = "__main__"
            PythonEvaluator()(block)

    def diff(self, block: Example) -> None:
        """Run the Python after the change, and compile the Python before. In YAML check that both sides name an LLM."""
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
        lines = [line for line in block.parsed.splitlines() if line.partition("  #")[0].strip() not in SKIPPED_LINES]
        script = "\n".join(lines)
        for address in SERVER_ADDRESSES:
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
        assert " ".join(normalized_lines(printed)) == " ".join(normalized_lines(shown))

    def text(self, block: Example) -> None:
        """Find each line of a block in the output of the last command."""
        printed = " ".join(normalized_lines(self._output))
        for line in normalized_lines(block.parsed):
            assert line in printed


def normalized_lines(text: str) -> list[str]:
    """Return the lines of a text, with placeholders for ids, numbers, times and white space."""
    for pattern, placeholder in (
        (r"(batch_|file-)[0-9a-f]+", r"\1ID"),
        (r"\b[0-9a-f]{32}-\d+", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", "TIME"),
        (r"https?://127\S*", "ADDRESS"),
        (r"/\S*/ledger\.", "LEDGER."),
        (r"\d[\d,.]*", "N"),
        # A job without duration has no pace, and so no ETA.
        (r"(?m)(ETA N s|–)$", "ETA"),
        # A run sees the end in a later second than the server, or in the same second.
        (r"(?m)^end seen.*$", ""),
    ):
        text = re.sub(pattern, placeholder, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def datasets_in(namespace: dict[str, object]) -> Iterator[Dataset]:
    for value in namespace.values():
        if isinstance(value, Distiset):
            yield from (value[name]["train"] for name in value)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != CLI_PAGE], ids=lambda page: str(page.relative_to(ROOT))
)
def test_each_code_block_of_a_page_runs(page, sandbox, working_directory, monkeypatch):
    """No pipeline returns a `None` answer, and no request is billed twice."""
    if page.name == "servers.md":
        sandbox.reset(Settings(dialect="azure"))
    if page in PAGES_IN_A_CLONE:
        (working_directory / "examples").symlink_to(EXAMPLES)
    if page.name == "failures.md":
        filtered = RequestFailure(contains="bomb", message="The prompt was filtered.", code="content_filter")
        sandbox.configure(failures=[filtered])
        # The log must not wrap lines.
        monkeypatch.setenv("COLUMNS", "500")
    if page.name == "costs.md":
        # `estimate` sends nothing, so OpenAI's address is safe.
        monkeypatch.delenv("OPENAI_BASE_URL")
        if LACKS_MODELS:
            monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_PRICES", json.dumps(OWN_PRICES))
        for task, model in (("generate", "gpt-6-luna"), ("judge", "gpt-6.1-terra")):
            scope = ScopeName("preferences", task, "https://api.openai.com/v1/")
            adopt_answer(ledger_directory(None), scope, model, LARGE_USAGE, f"batch_{task}")
    document = PageRunner(sandbox.base_url, monkeypatch).parse(page)
    blocks = list(document.examples())
    assert len(blocks) == len(BLOCK_START.findall(document.text)), "a block in a language without evaluator"
    for block in blocks:
        block.evaluate()
    for dataset in datasets_in(document.namespace):
        assert len(dataset)
        for column in {"generation", "ratings", "batch_id"} & set(dataset.column_names):
            assert None not in dataset[column]
    assert set(sandbox.books().billed.values()) <= {1}


def import_building() -> ModuleType:
    """Import `docs/building.py`, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("building", ROOT / "docs" / "building.py")
    building = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(building)
    return building


def test_the_reference_lists_each_field_of_the_public_classes():
    """Each field has a description."""
    building = import_building()
    page = building.CONFIGURATION.read_text(encoding="utf-8")
    for name in distilabel_openai_batch.__all__:
        model = getattr(distilabel_openai_batch, name)
        for field, about in getattr(model, "model_fields", {}).items():
            if building.is_ours(model, field):
                assert f"| `{field}` | " in page, f"{name}.{field}"
                assert about.description, f"{name}.{field}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_generated_parts_of_a_page_are_current(page):
    """The tables of fields and the address in install lines equal the output of `docs/building.py`."""
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- end of fields -->") == len(re.findall("<!-- (?:inherited )?fields of ", text))
    assert import_building().with_generated_parts(text) == text, "run `python docs/building.py`"


def test_the_site_builds_and_loads_nothing_from_other_hosts(tmp_path):
    """The build is as strict as `make docs`."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {page.parent.name: page.read_text(encoding="utf-8") for page in tmp_path.rglob("index.html")}
    assert {"resuming", "configuration", "examples", "benchmarks", "faq"} <= pages.keys()
    for page in pages.values():
        assert not EXTERNAL_RESOURCE.findall(page)
    assert "<!-- fields of" not in pages["configuration"]
    assert 'class="mermaid"' in pages["design"]


def test_the_recording_loads_nothing_from_other_hosts():
    """The picture refers to parts of itself only."""
    picture = (ROOT / "docs" / "assets" / "recording.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"url\((.)", picture)) == {"#"}
    assert not re.search(r"href=|<script|<image", picture)


@pytest.mark.parametrize("name", ["report", "ui"])
def test_a_screenshot_is_small(name):
    """A picture of `docs/screenshots.py` has less than 300 kB."""
    assert 0 < (ROOT / "docs" / "assets" / f"{name}.png").stat().st_size < 300_000


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_name_existing_files(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    built = {"examples.md", "benchmarks.md"}
    assert [link for link in links if link not in built and not (page.parent / link).exists()] == []


# Files that a newcomer copies from, and names of OpenAI's models in them. Names of deployments end in `-batch`.
COPIED_FILES = [*PAGES, *sorted(EXAMPLES.glob("*.py")), *sorted(EXAMPLES.glob("*.yaml"))]
MODEL_NAME = re.compile(r"""\bmodel(?:=|: |": )"?(gpt-[\w.-]+)""")
# https://platform.openai.com/docs/deprecations
DEPRECATED_MODELS = re.compile(r"gpt-[34]|gpt-5-")


@pytest.mark.parametrize("path", COPIED_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_models_that_newcomers_copy_are_current_and_have_a_price(path):
    names = {name for name in MODEL_NAME.findall(path.read_text(encoding="utf-8")) if not name.endswith("-batch")}
    assert not [name for name in names if DEPRECATED_MODELS.match(name)]
    without_price = [name for name in names if not prices.find_rates(name, "https://api.openai.com/v1/", time.time())]
    if without_price and LACKS_MODELS:
        pytest.skip(f"the price list for Python 3.10 ends with genai-prices 0.1.13, without {without_price}")
    assert not without_price


def test_each_skipped_line_is_on_a_page():
    """A line that was removed from the pages must be removed from `SKIPPED_LINES` too."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [line for line in SKIPPED_LINES if line not in text] == []


PROMPTS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(40)]
MORE_PROMPTS = [[{"role": "user", "content": f"Say letter {i}."}] for i in range(20)]
MODEL = "gpt-6-luna"
FAILURE = RequestFailure(contains="number 3", code="bad_prompt", message="No threes, please.")

# Input for commands that ask for confirmation.
CONFIRMATIONS = {"cancel --all": "y\n", "forget preferences": "n\n"}
# Commands that print the JSON below another command's block.
JSON_COMMANDS = {"jobs --look": "jobs --json", "failures": "failures --jsonl"}


def split_command(command: str) -> list[str]:
    """Return a command's words, with the ids of existing batches."""
    words = command.split()
    if words[0] == "adopt" and "--from" not in words:
        words[1] = create_external_batch()
    if words[0] == "show":
        words[1] = next(
            job.batch_id for job in LedgerReader(ledger_directory(None)).jobs() if 0 < job.answered < job.requests
        )
    return words


def generate(prompts, **fields) -> None:
    """Generate answers as a new process would, and wait for the answers."""
    load_as_new_process(OpenAIBatchLLM(model=MODEL, **fields)).generate(prompts)


def create_external_batch() -> str:
    """Create a batch without this package, and return its id."""
    url = "/v1/chat/completions"
    lines = [
        {"custom_id": str(i), "method": "POST", "url": url, "body": {"model": MODEL, "messages": messages}}
        for i, messages in enumerate(PROMPTS)
    ]
    content = b"\n".join(map(orjson.dumps, lines))
    with openai.OpenAI() as client:
        file = client.files.create(file=("external.jsonl", content), purpose="batch")
        return client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h").id


def prepare(command: str, sandbox: Sandbox) -> None:
    """Bring the jobs into the state that the page shows for a command."""
    if command.startswith("jobs --look"):
        sandbox.configure(validating_seconds=0.0)
    elif command.startswith(("watch", "adopt")):
        sandbox.configure(in_progress_seconds=0.0)
    elif command.startswith("failures"):
        generate(PROMPTS)
    elif command.startswith("cancel"):
        sandbox.configure(in_progress_seconds=600.0)
        submit_only(MORE_PROMPTS, max_requests_per_job=10, model=MODEL)
    elif command.startswith("doctor"):
        sandbox.configure(api_keys=["another"])


def test_the_page_of_the_command_line_lists_each_command_and_has_its_section():
    commands = {command.callback.__name__ for command in app.registered_commands}
    page = CLI_PAGE.read_text(encoding="utf-8")
    table = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page.partition("\n- ")[0], re.MULTILINE)
    sections = re.findall("^## (.+)$", page, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(table))) == sorted(commands)
    assert set(re.findall("`([a-z]+)`", " ".join(sections))) == commands


def test_the_readme_names_each_extra():
    paragraph = re.search(
        r"^Extras: .+?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )[0]
    named = {name for names in re.findall(r"`\[?([a-z,]+)\]?`", paragraph) for name in names.split(",")}
    assert named == set(doctor.EXTRAS)


def test_the_command_line_prints_the_output_on_its_page(sandbox, working_directory, monkeypatch):
    """The commands run in the order of the page, over runs in which the server rejects some requests."""
    monkeypatch.setattr(base, "_scope_name", lambda _, base_url: ScopeName("preferences", "generate", base_url))
    monkeypatch.setattr(doctor, "is_installed", lambda package: package != "ray")
    # Killed runs of other tests leave directories in the same temporary directory.
    monkeypatch.setattr(doctor, "remove_leftovers", lambda: 0)
    sandbox.reset(Settings(failures=[FAILURE]))
    generate(PROMPTS[:10])
    sandbox.configure(in_progress_seconds=600.0, validating_seconds=600.0)
    submit_only(PROMPTS[10:], max_requests_per_job=20, model=MODEL)

    languages = ("console", "json")
    document = Document.parse(str(CLI_PAGE), *(CodeBlockParser(language, lambda _: None) for language in languages))
    blocks = [block.parsed for block in document.examples()]
    assert len(blocks) == len(BLOCK_START.findall(document.text))
    command, printed = "", ""
    for block in blocks:
        if block.startswith("$ "):
            command, _, shown = block.removeprefix("$ distilabel-openai-batch ").partition("\n")
            prepare(command, sandbox)
            printed = run_command(*split_command(command), input=CONFIRMATIONS.get(command)).output
            # `watch` draws bars in terminals only.
            assert command == "watch" or set(normalized_lines(printed)) == set(normalized_lines(shown)), command
        elif command == "watch":
            assert normalized_lines(printed)[-2:] == normalized_lines(block)[-2:]
        else:
            output = run_command(*JSON_COMMANDS[command].split()).output
            first = json.loads(output)[0] if output.startswith("[") else json.loads(output.splitlines()[0])
            assert list(json.loads(block)) == list(first), command
