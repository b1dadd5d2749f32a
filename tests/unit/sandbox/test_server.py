"""The server as a process, its handle, and its books."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pydantic
import pytest

import distilabel_openai_batch
from distilabel_openai_batch.sandbox import Fault, Interval, RequestFailure, Sandbox, Settings
from distilabel_openai_batch.sandbox.books import most_at_once
from distilabel_openai_batch.sandbox.exchange import call_name

from .conftest import CHAT, body, jsonl, request, requests

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(distilabel_openai_batch.__file__).parents[1])}


def run(sandbox, client, lines):
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"k": "v"})
    sandbox.settle()
    return batch.id


def until(condition, seconds=10):
    """Returns once it holds: for what happens in other processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def reachable(base_url):
    try:
        httpx.get(f"{base_url}/batches", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_the_books_say_what_was_billed(sandbox, client):
    """By custom_id and by body: only what was answered with 200, as often as it was."""
    sandbox.configure(failures=[RequestFailure(contains="About r1,")])
    ids = [run(sandbox, client, requests(3)) for _ in range(2)]
    client.chat.completions.create(**body())
    books = sandbox.books()

    assert [batch["id"] for batch in books.batches] == ids
    assert books.batches[0]["metadata"] == {"k": "v"}
    assert sorted(books.batches[0]["custom_ids"]) == ["r0", "r1", "r2"]
    assert books.billed == {"r0": 2, "r2": 2}
    assert sorted(books.billed_bodies.values()) == [2, 2]
    assert books.sync == 1
    assert sum(file["purpose"] == "batch" for file in books.files) == 2


def test_the_books_say_which_jobs_ran_at_the_same_time(sandbox, client):
    """Each with its start and its end."""
    sandbox.configure(in_progress_seconds=1_000)
    for _ in range(3):
        run(sandbox, client, requests(1))
    sandbox.configure(in_progress_seconds=0)
    run(sandbox, client, requests(1))
    books = sandbox.books()

    assert books.max_jobs_in_flight == 3
    first, second, third, fourth = books.intervals
    assert first.start <= second.start <= third.start <= first.end <= fourth.start


@pytest.mark.parametrize(
    ("spans", "most"),
    [
        ([], 0),
        ([(1, 2)], 1),
        ([(1, 2), (2, 3)], 1),
        ([(1, 3), (2, 4), (3, 5)], 2),
        ([(1, None), (5, None), (2, 3)], 2),
        ([(1, 1)], 1),
    ],
)
def test_overlaps_are_counted(spans, most):
    """Those that merely touch do not overlap."""
    assert most_at_once(Interval("b", start, end) for start, end in spans) == most


def test_calls_are_logged_without_keys(sandbox, client):
    """Name, method, path, query, status and time, in the order they came."""
    client.batches.list(limit=3)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_x")
    listed, looked = sandbox.calls()
    assert (listed.name, listed.method, listed.path, listed.query, listed.status) == (
        "batches.list",
        "GET",
        "/v1/batches",
        "limit=3",
        200,
    )
    assert (looked.name, looked.path, looked.status) == ("batches.retrieve", "/v1/batches/batch_x", 404)
    assert abs(looked.time - time.time()) < 60
    assert sandbox.calls("batches.list") == [listed]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/files/file-x/content", "files.content"),
        ("GET", "/v1/files/file-x", "files.retrieve"),
        ("POST", "/v1/batches/batch_x/cancel", "batches.cancel"),
        ("PUT", "/v1/batches", "unknown"),
        ("GET", "/v1/files/a/b/content", "unknown"),
    ],
)
def test_calls_have_the_names_of_the_sdk(method, path, name):
    """`resource.method`."""
    assert call_name(method, path) == name


def test_a_reset_forgets_everything(sandbox, client):
    """Files, batches, calls, faults and settings; the settings of the start hold again."""
    run(sandbox, client, requests(1))
    sandbox.reset(Settings(max_batches_per_hour=0, failures=[RequestFailure(contains="")]))
    sandbox.add_fault(Fault(call="any", kind="status", times=-1))
    sandbox.reset()
    books = sandbox.books()
    assert (books.batches, books.files, books.billed, sandbox.calls()) == ([], [], {}, [])
    run(sandbox, client, requests(1))
    assert sandbox.books().billed == {"r0": 1}


def test_bad_settings_are_refused():
    """Before anything is started, and while it runs."""
    with pytest.raises(pydantic.ValidationError):
        Settings(validating_seconds=-1)
    with pytest.raises(pydantic.ValidationError):
        Settings(speed=3)


def test_bad_changes_are_refused(sandbox):
    """And leave the settings as they were."""
    with pytest.raises(pydantic.ValidationError):
        sandbox.configure(speed=3)


def test_a_sandbox_stops_with_its_block():
    """Its address is known before, and free after."""
    with Sandbox(Settings(models=["mine"])) as sandbox:
        base_url = sandbox.base_url
        assert reachable(base_url)
        with pytest.raises(RuntimeError, match="running already"):
            sandbox.start()
    assert not reachable(base_url)
    sandbox.stop()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = sandbox.base_url


def test_a_port_that_is_taken_is_an_error(sandbox, capfd):
    """At once, with the reason on stderr."""
    port = httpx.URL(sandbox.base_url).port
    with pytest.raises(RuntimeError, match="did not start"):
        Sandbox(port=port).start()
    assert "in use" in capfd.readouterr().err


def test_a_fork_of_the_owner_does_not_stop_the_server(sandbox):
    """Pipelines fork; their processes end and must leave the server alone."""
    child = os.fork()
    if child == 0:
        sandbox.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert reachable(sandbox.base_url)


def test_the_server_ends_when_its_parent_is_killed(tmp_path):
    """However suddenly; it leaves no files behind."""
    script = (
        "import time; from distilabel_openai_batch.sandbox import Sandbox; s = Sandbox(); s.start(); "
        "print(s.base_url, flush=True); time.sleep(60)"
    )
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        base_url = parent.stdout.readline().strip()
        assert reachable(base_url)
        assert list(tmp_path.iterdir())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until(lambda: not reachable(base_url) and not list(tmp_path.iterdir()))


def test_it_can_be_served_from_the_command_line():
    """In words for people, in JSON for programs; it ends on SIGINT."""
    command = [sys.executable, "-m", "distilabel_openai_batch.sandbox", "--port", "0"]
    for option, read in (
        (["--announce"], lambda line: json.loads(line)["base_url"]),
        ([], lambda line: line.split()[5].rstrip(".")),
    ):
        with subprocess.Popen([*command, *option], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            base_url = read(process.stdout.readline())
            assert reachable(base_url)
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        assert not reachable(base_url)
        assert option or f"export OPENAI_BASE_URL={base_url}\n" in rest


def test_starting_it_does_not_import_distilabel():
    """Which takes seconds that every test would wait."""
    script = "import sys, distilabel_openai_batch.sandbox; print('distilabel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the memory of a process from /proc")
def test_a_large_file_is_not_held_in_memory(client):
    """Upload, work and download: the server grows by far less than the file."""
    lines = jsonl([request(f"r{index}", body=body("x" * 50_000)) for index in range(1_200)])

    def peak():
        status = Path(f"/proc/{sandbox._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1_024

    with Sandbox() as sandbox:
        client = client.with_options(base_url=sandbox.base_url)
        before = peak()
        run(sandbox, client, lines=[request("warm-up")])
        file = client.files.create(file=("in.jsonl", lines), purpose="batch")
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        sandbox.settle()
        assert sum(len(part) for part in client.files.content(file.id).iter_bytes()) == len(lines)
        assert len(lines) > 60_000_000
        assert peak() - before < 30_000_000
