"""Notices at the end of a run, the command of `watch`, and webhooks that wake a waiting run."""

from __future__ import annotations

import json
import os
import shlex
import threading
from pathlib import Path

import openai
import pytest

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM
from distilabel_openai_batch.engine.wake import wake_runs
from distilabel_openai_batch.operations.webhooks import WebhookReceiver, create_server
from distilabel_openai_batch.sandbox import Fault
from tests.support.commands import run_command
from tests.support.environment import API_KEY, load_as_new_process

QUESTIONS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(3)]
SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="


def generate(**fields):
    llm = OpenAIBatchLLM(**{"model": "gpt-4o-mini", "min_poll_interval": 0.02, **fields})
    return load_as_new_process(llm).generate(QUESTIONS)


@pytest.fixture
def notice(tmp_path):
    """Return a command that stores its input, and a function that reads the stored facts."""
    path = tmp_path / "notice.json"
    return f"cat > {shlex.quote(str(path))}", lambda: json.loads(path.read_text())


def test_the_end_of_a_run_is_noticed(sandbox, notice):
    command, read = notice
    generate(on_end=command)
    facts = read()
    assert (facts["event"], facts["status"], facts["requests"], facts["answered"]) == ("run.ended", "ended", 3, 3)
    assert API_KEY not in json.dumps(facts)


def test_the_failure_of_a_run_is_noticed(sandbox, notice):
    command, read = notice
    sandbox.add_fault(Fault(call="files.create", kind="status", status=401, times=-1))
    with pytest.raises(AuthenticationError):
        generate(on_end=command)
    assert (read()["status"], read()["pending"]) == ("failed", 3)
    assert "401" in read()["error"]


def test_a_failing_notice_is_a_warning(sandbox, caplog):
    assert generate(on_end="exit 3")
    assert "The command `exit 3` failed with exit code 3." in caplog.text


def test_a_dump_has_a_command_and_no_url():
    """distilabel uploads the dump with a dataset; the path of a URL is a secret at many services."""
    dump = OpenAIBatchLLM(model="gpt-4o-mini", on_end="notify-send done").dump()
    assert dump["on_end"] == "notify-send done"
    llm = OpenAIBatchLLM(model="gpt-4o-mini", on_end="https://hooks.example.com/secret-path")
    assert llm.dump()["on_end"] is None
    assert "secret-path" not in repr(llm)


def test_watch_runs_a_command_at_the_end(sandbox, notice):
    command, read = notice
    sandbox.configure(in_progress_seconds=600.0)
    with pytest.raises(Exception, match="batch_"):
        generate(wait=False)
    sandbox.configure(in_progress_seconds=0.0)
    assert run_command("watch", "--interval", "0.05", "--exec", command).exit_code == 0
    facts = read()
    [batch] = facts["batches"]
    assert (facts["event"], facts["requests"], batch["status"]) == ("jobs.ended", 3, "completed")
    failed = run_command("watch", "--exec", "exit 3")
    assert (failed.exit_code, "failed with exit code 3" in failed.stderr) == (1, True)


@pytest.mark.skipif(not hasattr(openai.OpenAI, "webhooks"), reason="openai below 1.92 has no webhooks")
def test_a_webhook_wakes_a_waiting_run(sandbox):
    """Without the webhook the run would poll after ten minutes."""
    sandbox.configure(in_progress_seconds=600.0)
    outputs: list[object] = []
    run = threading.Thread(
        target=lambda: outputs.append(generate(min_poll_interval=600.0, max_poll_interval=600.0)), daemon=True
    )
    ledger_dir = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    run.start()
    while not sandbox.calls("batches.create"):
        run.join(0.02)
    sandbox.configure(in_progress_seconds=0.0)
    receiver = WebhookReceiver(SECRET, lambda kind, batch_id: wake_runs(ledger_dir))
    with create_server(receiver, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        # The run may not have begun its pause at the first webhook.
        for _ in range(300):
            sandbox.send_webhook(f"http://127.0.0.1:{server.server_port}/", SECRET, "batch_1")
            run.join(0.2)
            if not run.is_alive():
                break
        server.shutdown()
    assert len(outputs) == 1
