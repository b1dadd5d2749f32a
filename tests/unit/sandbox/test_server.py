"""Server process, its control by a test, and its records."""

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
from distilabel_openai_batch.sandbox.middleware import call_name
from distilabel_openai_batch.sandbox.records import max_overlap

from .conftest import CHAT, batch_line, batch_lines, chat_body, jsonl

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(distilabel_openai_batch.__file__).parents[1])}


def run_batch(sandbox, client, lines):
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"k": "v"})
    sandbox.settle()
    return batch.id


def wait_until(condition, seconds=10):
    """Wait until `condition()` is true, for events in other processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_reachable(base_url):
    try:
        httpx.get(f"{base_url}/batches", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_books_count_billed_requests(sandbox, client):
    """Count requests answered with 200, by `custom_id` and by body."""
    sandbox.configure(failures=[RequestFailure(contains="About r1,")])
    ids = [run_batch(sandbox, client, batch_lines(3)) for _ in range(2)]
    client.chat.completions.create(**chat_body())
    books = sandbox.books()

    assert [batch["id"] for batch in books.batches] == ids
    assert books.batches[0]["metadata"] == {"k": "v"}
    assert sorted(books.batches[0]["custom_ids"]) == ["r0", "r1", "r2"]
    assert books.billed == {"r0": 2, "r2": 2}
    assert sorted(books.billed_bodies.values()) == [2, 2]
    assert books.sync == 1
    assert sum(file["purpose"] == "batch" for file in books.files) == 2


def test_books_record_the_running_time_of_each_batch(sandbox, client):
    """Record start and end of each batch."""
    sandbox.configure(in_progress_seconds=1_000)
    for _ in range(3):
        run_batch(sandbox, client, batch_lines(1))
    sandbox.configure(in_progress_seconds=0)
    run_batch(sandbox, client, batch_lines(1))
    books = sandbox.books()

    assert books.max_jobs_in_flight == 3
    first, second, third, fourth = books.intervals
    assert first.start <= second.start <= third.start <= first.end <= fourth.start


@pytest.mark.parametrize(
    ("spans", "maximum"),
    [
        ([], 0),
        ([(1, 2)], 1),
        ([(1, 2), (2, 3)], 1),
        ([(1, 3), (2, 4), (3, 5)], 2),
        ([(1, None), (5, None), (2, 3)], 2),
        ([(1, 1)], 1),
    ],
)
def test_overlapping_intervals_are_counted(spans, maximum):
    """Intervals that only touch do not overlap."""
    assert max_overlap(Interval("b", start, end) for start, end in spans) == maximum


def test_calls_are_recorded_without_keys(sandbox, client):
    """Record name, method, path, query, status and time, in the order of arrival."""
    client.batches.list(limit=3)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_x")
    list_call, retrieve_call = sandbox.calls()
    assert (list_call.name, list_call.method, list_call.path, list_call.query, list_call.status) == (
        "batches.list",
        "GET",
        "/v1/batches",
        "limit=3",
        200,
    )
    assert (retrieve_call.name, retrieve_call.path, retrieve_call.status) == (
        "batches.retrieve",
        "/v1/batches/batch_x",
        404,
    )
    assert abs(retrieve_call.time - time.time()) < 60
    assert sandbox.calls("batches.list") == [list_call]


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
    """Names have the form `resource.method`."""
    assert call_name(method, path) == name


def test_reset_clears_everything(sandbox, client):
    """Clear files, batches, calls, faults and settings; the initial settings hold again."""
    run_batch(sandbox, client, batch_lines(1))
    sandbox.reset(Settings(max_batches_per_hour=0, failures=[RequestFailure(contains="")]))
    sandbox.add_fault(Fault(call="any", kind="status", times=-1))
    sandbox.reset()
    books = sandbox.books()
    assert (books.batches, books.files, books.billed, sandbox.calls()) == ([], [], {}, [])
    run_batch(sandbox, client, batch_lines(1))
    assert sandbox.books().billed == {"r0": 1}


def test_invalid_settings_are_refused():
    """Refuse a bad value and an unknown field."""
    with pytest.raises(pydantic.ValidationError):
        Settings(validating_seconds=-1)
    with pytest.raises(pydantic.ValidationError):
        Settings(speed=3)


def test_invalid_changes_are_refused(sandbox):
    """The settings stay unchanged."""
    with pytest.raises(pydantic.ValidationError):
        sandbox.configure(speed=3)


def test_sandbox_stops_at_the_end_of_the_with_block():
    """The address is known inside the block, and free afterwards."""
    with Sandbox(Settings(models=["mine"])) as sandbox:
        base_url = sandbox.base_url
        assert is_reachable(base_url)
        with pytest.raises(RuntimeError, match="running already"):
            sandbox.start()
    assert not is_reachable(base_url)
    sandbox.stop()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = sandbox.base_url


def test_taken_port_is_an_error(sandbox, capfd):
    """The reason is on stderr."""
    port = httpx.URL(sandbox.base_url).port
    with pytest.raises(RuntimeError, match="did not start"):
        Sandbox(port=port).start()
    assert "in use" in capfd.readouterr().err


def test_fork_of_the_owner_does_not_stop_the_server(sandbox):
    """Pipelines fork, and the end of a forked process must not stop the server."""
    child = os.fork()
    if child == 0:
        sandbox.stop()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_reachable(sandbox.base_url)


def test_server_stops_when_its_parent_is_killed(tmp_path):
    """The server removes its files."""
    script = (
        "import time; from distilabel_openai_batch.sandbox import Sandbox; s = Sandbox(); s.start(); "
        "print(s.base_url, flush=True); time.sleep(60)"
    )
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        base_url = parent.stdout.readline().strip()
        assert is_reachable(base_url)
        assert list(tmp_path.iterdir())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not is_reachable(base_url) and not list(tmp_path.iterdir()))


def test_sandbox_is_served_from_the_command_line():
    """Print a text or JSON, and stop on SIGINT."""
    command = [sys.executable, "-m", "distilabel_openai_batch.sandbox", "--port", "0"]
    for option, read in (
        (["--announce"], lambda line: json.loads(line)["base_url"]),
        ([], lambda line: line.split()[5].rstrip(".")),
    ):
        with subprocess.Popen([*command, *option], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
            base_url = read(process.stdout.readline())
            assert is_reachable(base_url)
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        assert not is_reachable(base_url)
        assert option or f"export OPENAI_BASE_URL={base_url}\n" in rest


def test_importing_the_sandbox_does_not_import_distilabel():
    """The import of distilabel takes seconds, which every start would wait for."""
    script = "import sys, distilabel_openai_batch.sandbox; print('distilabel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the memory of a process from /proc")
def test_large_file_is_not_held_in_memory(client):
    """During upload, work and download the server grows by far less than the size of the file."""
    lines = jsonl([batch_line(f"r{index}", body=chat_body("x" * 50_000)) for index in range(1_200)])

    def peak_memory():
        status = Path(f"/proc/{sandbox._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1_024

    with Sandbox() as sandbox:
        client = client.with_options(base_url=sandbox.base_url)
        before = peak_memory()
        run_batch(sandbox, client, lines=[batch_line("warm-up")])
        file = client.files.create(file=("in.jsonl", lines), purpose="batch")
        client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        sandbox.settle()
        assert sum(len(part) for part in client.files.content(file.id).iter_bytes()) == len(lines)
        assert len(lines) > 60_000_000
        assert peak_memory() - before < 30_000_000


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer key", 200),
        ("Basic bWU6a2V5", 200),
        ("Basic bWU6b3RoZXI=", 401),
        ("Basic bWU=", 401),
        ("Basic !", 401),
        ("Basic /w==", 401),
        ("Bearer", 401),
        ("Digest key", 401),
        (None, 401),
    ],
)
def test_the_key_comes_as_bearer_token_or_as_basic_password(sandbox, header, status):
    """httpx sends Basic auth in place of the key for an address with a user."""
    sandbox.reset(Settings(api_keys=["key"]))
    headers = {} if header is None else {"Authorization": header}
    assert httpx.get(f"{sandbox.base_url}/batches", headers=headers, trust_env=False).status_code == status
