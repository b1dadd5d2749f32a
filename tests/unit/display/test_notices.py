"""Notices to a command or a URL, and the facts of a session that has ended."""

from __future__ import annotations

import json
import shlex
import sys

import httpx
import pytest
import respx

from distilabel_openai_batch import RunError
from distilabel_openai_batch.display import notices
from distilabel_openai_batch.display.notices import NoticeError, describe_end, is_url, send_notice
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.ledger.states import ScopeName

SCOPE = ScopeName("preferences", "generate", "https://api.openai.com/v1/")
URL = "https://hooks.example.com/services/T0/secret-path"


def test_a_command_reads_the_facts_and_inherits_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", "whsec_secret")
    path = shlex.quote(str(tmp_path / "notice.json"))
    send_notice(f'cat > {path}; echo "$OPENAI_API_KEY$OPENAI_WEBHOOK_SECRET" >> {path}', {"status": "ended"})
    assert (tmp_path / "notice.json").read_text() == '{"status":"ended"}\n'


def test_a_failing_or_endless_command_is_an_error(monkeypatch):
    with pytest.raises(NoticeError, match="failed with exit code 3"):
        send_notice("exit 3", {})
    monkeypatch.setattr(notices, "LONGEST_SECONDS", 0.05)
    with pytest.raises(NoticeError, match="was ended after"):
        send_notice(f"exec {shlex.quote(sys.executable)} -c 'input(); import time; time.sleep(9)'", {})


@respx.mock
def test_a_url_receives_the_facts_as_json():
    route = respx.post(URL).mock(return_value=httpx.Response(204))
    send_notice(URL, {"status": "ended"})
    request = route.calls.last.request
    assert (json.loads(request.content), request.headers["content-type"]) == ({"status": "ended"}, "application/json")


@pytest.mark.parametrize("answer", [{"return_value": httpx.Response(500)}, {"side_effect": httpx.ConnectError("No.")}])
@respx.mock
def test_an_error_shows_the_host_alone(answer):
    """The path of such an address is a secret."""
    respx.post(URL).mock(**answer)
    with pytest.raises(NoticeError, match=r"hooks\.example\.com") as error:
        send_notice(URL, {})
    assert "secret-path" not in str(error.value)


@pytest.mark.parametrize(
    ("target", "expected"), [("http://a/b", True), ("https://a", True), ("notify-send done", False), ("./a.sh", False)]
)
def test_urls_are_told_from_commands(target, expected):
    assert is_url(target) is expected


@pytest.mark.parametrize(
    ("counts", "error", "status", "text"),
    [
        (TaskCounts(requests=3, answered=2, failed=1), None, "ended", None),
        (TaskCounts(requests=3, answered=1), None, "in_progress", None),
        (TaskCounts(requests=3), InterruptedError("batch_1"), "in_progress", None),
        (TaskCounts(requests=3), RunError("The key was withdrawn."), "failed", "The key was withdrawn."),
    ],
)
def test_the_facts_of_an_end_name_its_status(counts, error, status, text):
    facts = describe_end(SCOPE, "gpt-6-luna", counts, error)
    assert (facts["status"], facts["error"], facts["scope"]) == (status, text, "preferences/generate")
    assert (facts["requests"], facts["pending"]) == (3, counts.pending)
    json.dumps(facts)
