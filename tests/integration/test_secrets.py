"""Keys, headers and addresses with secrets: the server gets them, and no file, log line or error shows them."""

from __future__ import annotations

import json
import logging
import os
from base64 import b64encode
from pathlib import Path

import pytest

from distilabel_openai_batch import InvalidSettingError, MissingSettingError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.sandbox import Fault, Sandbox, Settings
from tests.support.commands import run_command
from tests.support.environment import API_KEY, load_as_new_process

PROMPTS = [[{"role": "user", "content": f"Say number {i}."}] for i in range(3)]
QUERY_KEY = "query-key-that-must-not-leak"
PASSWORD = "password-that-must-not-leak"
HEADER = "header-that-must-not-leak"
SECRETS = [API_KEY, QUERY_KEY, PASSWORD, HEADER]

pytestmark = pytest.mark.usefixtures("quick_retries")


def generate(**fields):
    llm = OpenAIBatchLLM(model="gpt-4o-mini", **{"min_poll_interval": 0.02, **fields})
    return [output["generations"][0] for output in load_as_new_process(llm).generate(PROMPTS)]


def ledger_bytes() -> bytes:
    directory = Path(os.environ["DISTILABEL_OPENAI_BATCH_DIR"])
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("ending", ["\n", "\r\n", " ", "\t\u2028"], ids=ascii)
def test_a_key_with_white_space_around_it_works(sandbox, monkeypatch, ending):
    sandbox.reset(Settings(api_keys=[API_KEY]))
    monkeypatch.setenv("OPENAI_API_KEY", f" {API_KEY}{ending}")
    assert None not in generate()
    assert run_command("doctor").output.count("✗") == 1
    assert run_command("jobs", "--look").exit_code == 0


@pytest.mark.parametrize("middle", ["\n", "\r", "\0", "\x1b", "é", "\u200b"], ids=ascii)
def test_a_key_that_no_header_can_carry_is_an_error_before_any_call(sandbox, monkeypatch, caplog, middle):
    key = f"{API_KEY}{middle}{API_KEY}"
    with pytest.raises(InvalidSettingError) as caught:
        generate(api_key=key)
    monkeypatch.setattr(os, "environ", os.environ | {"OPENAI_API_KEY": key})
    output = run_command("doctor").output
    assert "Set it to the key only" in output
    assert API_KEY not in f"{caught.value}{caplog.text}{output}"
    assert sandbox.calls() == []


def test_a_key_of_white_space_is_missing(sandbox):
    with pytest.raises(MissingSettingError):
        generate(api_key=" \n")


@pytest.mark.parametrize("name", ["X-Gateway-Token", "Cookie"])
def test_a_header_that_cannot_be_sent_is_an_error_without_its_value(sandbox, name):
    with pytest.raises(InvalidSettingError, match=name) as caught:
        generate(default_headers={name: f"{HEADER}\n{HEADER}"})
    assert HEADER not in str(caught.value)


def with_secrets(base_url: str) -> str:
    return f"{base_url.replace('//', f'//me:{PASSWORD}@')}?api_key={QUERY_KEY}&team=data"


def test_secrets_reach_the_server_and_nothing_else(sandbox, caplog):
    """The server quotes every secret in several encodings, and is unreachable for a while."""
    quoted = [repr(secret.encode()) for secret in SECRETS] + [json.dumps(secret) for secret in SECRETS]
    quoted.append(b64encode(f"me:{PASSWORD}".encode()).decode())
    sandbox.add_fault(Fault(call="batches.create", kind="status", status=503, body=" ".join(quoted)))
    with caplog.at_level(logging.INFO):
        answers = generate(
            base_url=with_secrets(sandbox.base_url), default_headers={"X-Gateway-Token": HEADER}, max_retries=3
        )
    assert None not in answers
    assert all(f"api_key={QUERY_KEY}&team=data" in call.query for call in sandbox.calls())
    metadata = [batch["metadata"] for batch in sandbox.books().batches]
    shown = f"{caplog.text}{metadata}{run_command('jobs').output}{run_command('jobs', '--json').output}"
    assert "***" in caplog.text
    for secret in [*SECRETS, b64encode(f"me:{PASSWORD}".encode()).decode()]:
        assert secret not in shown
        assert secret.encode() not in ledger_bytes()


def test_another_password_and_query_are_the_same_scope(sandbox):
    """A rotated secret buys nothing again."""
    assert generate(base_url=with_secrets(sandbox.base_url)) == generate()
    assert set(sandbox.books().billed.values()) == {1}


def test_commands_take_password_and_query_from_the_environment(sandbox, monkeypatch, tmp_path):
    """The ledger has neither."""
    generate()
    batch_id = sandbox.books().batches[0]["id"]
    monkeypatch.setenv("OPENAI_BASE_URL", with_secrets(sandbox.base_url))
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_DIR", str(tmp_path))
    results = [
        run_command("doctor"),
        run_command("adopt", batch_id, "elsewhere", "--base-url", with_secrets(sandbox.base_url)),
        run_command("jobs", "--base-url", with_secrets(sandbox.base_url)),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0]
    assert "elsewhere" in results[-1].output
    used = {call.name for call in sandbox.calls() if QUERY_KEY in call.query}
    assert used >= {"batches.list", "files.list", "batches.retrieve", "files.content"}
    for secret in (PASSWORD, QUERY_KEY):
        assert secret not in "".join(result.output for result in results)
        assert secret.encode() not in ledger_bytes()


def test_an_address_that_is_no_url_is_an_error_without_its_password(sandbox):
    with pytest.raises(InvalidSettingError, match=r"http://host/v1") as caught:
        generate(base_url=f"http://me:{PASSWORD}/@host/v1?api_key={QUERY_KEY}")
    assert PASSWORD not in str(caught.value)
    output = run_command("doctor", "--base-url", f"http://me:{PASSWORD}/@host/v1").output
    assert "no valid address" in output
    assert PASSWORD not in output


def test_the_repr_and_the_dump_of_an_llm_show_no_secret(sandbox):
    """distilabel's tracebacks show local variables, and `push_to_hub` uploads the dump."""
    llm = OpenAIBatchLLM(
        model="gpt-4o-mini",
        base_url=with_secrets(sandbox.base_url),
        default_headers={"Authorization": f"Bearer {HEADER}", "X-Team": "data-team"},
    )
    shown = f"{llm!r}{llm.session_settings()!r}{llm.dump()}"
    assert llm.dump()["base_url"] == sandbox.base_url
    assert llm.dump()["default_headers"] == {"X-Team": "data-team"}
    assert not [secret for secret in SECRETS if secret in shown]


# Redirects between two servers.


@pytest.fixture
def other_server():
    with Sandbox() as server:
        yield server


@pytest.mark.parametrize("call", ["files.create", "batches.create", "batches.retrieve"])
@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_to_another_server_ends_the_run_with_one_error(sandbox, other_server, call, status):
    location = f"{other_server.base_url}/batches"
    sandbox.add_fault(Fault(call=call, kind="status", status=status, headers={"location": location}, times=-1))
    with pytest.raises(RunError, match="redirects") as caught:
        generate(default_headers={"Cookie": HEADER})
    for server in (sandbox, other_server):
        assert server.base_url.removesuffix("/v1") in str(caught.value)
    assert other_server.calls() == []
    assert len(sandbox.calls(call)) == 1


def test_a_command_follows_no_redirect_to_another_server(sandbox, other_server):
    generate()
    sandbox.add_fault(
        Fault(call="batches.list", kind="status", status=302, headers={"location": other_server.base_url})
    )
    output = run_command("doctor").output
    assert "another host" in output
    assert other_server.calls() == []


def test_results_are_requested_from_a_storage_without_the_key(sandbox, other_server):
    """The storage answers 401 to a call without a key; the job stays open, and the next run collects the answers."""
    location = f"{other_server.base_url}/files/stored/content"
    sandbox.add_fault(Fault(call="files.content", kind="status", status=302, headers={"location": location}))
    with pytest.raises(RunError, match=r"storage 127.0.0.1 .*HTTP 401"):
        generate(default_headers={"Authorization": f"Bearer {API_KEY}", "Cookie": HEADER})
    assert [call.name for call in other_server.calls()] == ["files.content"]
    assert None not in generate()
    assert set(sandbox.books().billed.values()) == {1}
