"""Log lines, progress and errors of an LLM whose server gives hostile texts in each field."""

from __future__ import annotations

import io
import logging

import httpx
import orjson
import pytest
from rich.console import Console

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.display.bars import Bar, Bars
from distilabel_openai_batch.display.live import NotebookDisplay
from tests.support.batch_api import reply
from tests.support.hostile import HOSTILE, is_harmless
from tests.unit.plugin.stubs import CONNECTION, MESSAGES

URL = "https://api.example.com/v1"


def load(directory) -> OpenAIBatchLLM:
    fields = {**CONNECTION, "base_url": URL, "model": HOSTILE}
    llm = OpenAIBatchLLM(**fields, ledger_dir=str(directory), min_poll_interval=0.01)
    llm.load()
    return llm


def batch(key: str, **fields: object) -> dict[str, object]:
    return {
        "id": "batch_1",
        "status": "validating",
        "metadata": {"distilabel_openai_batch_key": key},
        "request_counts": {"total": 2, "completed": 1, "failed": 1},
        "created_at": 1,
        **fields,
    }


@pytest.fixture
def answer(respx_mock):
    """Let the server answer the first request and refuse the second, with hostile texts."""
    uploaded: list[bytes] = []

    def upload(request):
        uploaded.append(request.content)
        return reply({"id": "file-1", "filename": HOSTILE, "status": HOSTILE})

    def download(request):
        content = b"".join(uploaded)
        ids = [part[:34].decode() for part in content.split(b'{"custom_id":"')[1:]]
        message = {"role": "assistant", "content": HOSTILE}
        body = {"id": HOSTILE, "model": HOSTILE, "choices": [{"message": message, "finish_reason": HOSTILE}]}
        error = {"message": HOSTILE, "code": HOSTILE}
        lines = [
            {"custom_id": ids[0], "response": {"status_code": 200, "body": body}},
            {"custom_id": ids[1], "response": {"status_code": 400, "body": {"error": error}}},
        ]
        return httpx.Response(200, content=b"\n".join(map(orjson.dumps, lines)))

    def create(request):
        return reply(batch(orjson.loads(request.content)["metadata"]["distilabel_openai_batch_key"]))

    respx_mock.post(f"{URL}/files").mock(side_effect=upload)
    respx_mock.get(f"{URL}/batches").respond(json={"data": []})
    respx_mock.post(f"{URL}/batches").mock(side_effect=create)
    respx_mock.get(f"{URL}/batches/batch_1").respond(
        json=batch("", status="completed", output_file_id="file-2", model=HOSTILE, errors=[{"message": HOSTILE}])
    )
    respx_mock.get(f"{URL}/files/file-2/content").mock(side_effect=download)
    return respx_mock


def test_the_log_of_a_run_has_no_control_characters(answer, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    outputs = load(tmp_path).generate([MESSAGES, [{"role": "user", "content": "And?"}]])
    assert [output["generations"] for output in outputs] == [[HOSTILE], [None]]
    assert is_harmless(caplog.text)
    assert "evil \\x1b]8;;https" in caplog.text


@pytest.mark.parametrize("status_code", [400, 401, 404, 429])
def test_a_refusal_is_logged_and_raised_without_control_characters(respx_mock, caplog, tmp_path, status_code):
    code = "insufficient_quota" if status_code == 429 else HOSTILE
    respx_mock.route().respond(status_code, json={"error": {"message": HOSTILE, "code": code, "type": HOSTILE}})
    with pytest.raises(RunError, match="evil") as caught:
        load(tmp_path).generate([MESSAGES])
    assert is_harmless(str(caught.value))
    assert is_harmless(caplog.text)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_bars_have_no_control_characters_of_a_server(is_terminal):
    """The escape sequences of rich itself consist of numbers and letters."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=300)
    with Bars(console) as bars:
        bars.draw([Bar(f"b{HOSTILE}", HOSTILE, 1, 2, HOSTILE, False, None)], 1, 2)
    text = output.getvalue()
    assert "evil" in text
    assert not any(part in text for part in ("\x1b]8", "\x1b]52", "\x1b[2J", "\x9b", "\u202e", "\x07", "\x08"))


def test_the_line_of_a_notebook_has_no_control_characters():
    shown = []
    display = NotebookDisplay(lambda data, **options: shown.append(data["text/plain"]))
    display.show([Bar("b", "", 1, 2, HOSTILE, False, None)], 1, 2)
    assert is_harmless(shown[0])
