"""Notices to programs: a command that receives facts as JSON, or a URL to which the facts are posted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import orjson

from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.errors import OpenAIBatchError, RunError
from distilabel_openai_batch.ledger.states import ScopeName

LONGEST_SECONDS = 60.0
"""Seconds after which a command is ended, or a server is given up."""

# Variables that a command does not inherit: a notice never passes a key on.
_SECRET_VARIABLES = ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET", "AZURE_OPENAI_API_KEY")


class NoticeError(OpenAIBatchError):
    """Failure of a command or of a server to take a notice."""


def is_url(target: str) -> bool:
    """Return whether the target of a notice is a URL, and no command."""
    return urlsplit(target).scheme in ("http", "https")


def send_notice(target: str, facts: Mapping[str, object]) -> None:
    """Run a command with facts as JSON on its standard input, or post the facts to a URL as JSON.

    A command runs in the shell, without the variables of API keys.

    Args:
        target: the command, or the URL.
        facts: values that JSON can hold.

    Raises:
        NoticeError: the command or the server failed, or took longer than `LONGEST_SECONDS`.
    """
    content = orjson.dumps(facts)
    if is_url(target):
        _post(target, content)
    else:
        _run(target, content)


def _post(url: str, content: bytes) -> None:
    # The path of such an address is a secret at many services → no message shows more than the host.
    host = urlsplit(url).hostname
    try:
        reply = httpx.post(url, content=content, headers={"Content-Type": "application/json"}, timeout=LONGEST_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoticeError(f"The notice to {host} was not sent: {type(error).__name__}.") from None
    if reply.status_code >= 400:
        raise NoticeError(f"The notice to {host} was answered with status {reply.status_code}.")


def _run(command: str, content: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES}
    try:
        ended = subprocess.run(  # noqa: S602  # the user's own command
            command, shell=True, input=content, env=environment, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoticeError(f"The command `{command}` was ended after {LONGEST_SECONDS:.0f} s.") from None
    if ended.returncode:
        raise NoticeError(f"The command `{command}` failed with exit code {ended.returncode}.")


def describe_end(scope: ScopeName, model: str, counts: TaskCounts, error: Exception | None) -> dict[str, object]:
    """Return the facts of a session that has ended.

    Args:
        scope: the scope of the session.
        model: the model that the requests name.
        counts: the numbers of the session.
        error: the error that ended the run; `None` if the run went on.

    Returns:
        The facts. `status` is `failed` with a `RunError`, `in_progress` if jobs are left at the server, else `ended`.
    """
    status = "in_progress" if error or counts.pending else "ended"
    if isinstance(error, RunError):
        status = "failed"
    return {
        "event": "run.ended",
        "status": status,
        "scope": scope.label,
        "base_url": scope.base_url,
        "model": model,
        "error": str(error) if isinstance(error, RunError) else None,
        "pending": counts.pending,
        **counts.facts(),
    }
