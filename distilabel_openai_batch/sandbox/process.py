"""Sandbox in a process of its own, started and controlled by a test."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson

from .faults import AnyFault
from .records import Books, Call, Interval
from .settings import Settings

_STOP_SECONDS = 5.0


class Sandbox:
    """Sandbox process, as a context manager.

    Examples:
        ```python
        from openai import OpenAI

        from distilabel_openai_batch.sandbox import Sandbox

        with Sandbox() as sandbox:
            client = OpenAI(base_url=sandbox.base_url, api_key="anything")
            print(client.batches.list().data)
        ```

    Args:
        settings: settings of the sandbox; `None` for the defaults of `Settings`.
        port: port to listen at; 0 for any free port.
    """

    def __init__(self, settings: Settings | None = None, *, port: int = 0) -> None:
        self._settings = Settings() if settings is None else settings
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """Base URL for a client, such as `http://127.0.0.1:8000/v1`.

        Raises:
            RuntimeError: if the sandbox is not running.
        """
        if not self._base_url:
            raise RuntimeError("The sandbox has not been started.")
        return self._base_url

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and return when the server listens.

        Raises:
            RuntimeError: if the server is running already, or ends before the server listens.
        """
        if self._process is not None:
            raise RuntimeError("The sandbox is running already.")
        # The package may have been imported from any path, so let the child process search the same path first.
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        arguments = ["--port", str(self._port), "--announce", "--parent", str(os.getpid())]
        arguments += ["--settings", "-"]
        self._owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __package__, *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl+C in a terminal must reach only the program under test, so start the server in a new session.
            start_new_session=True,
        )
        atexit.register(self.stop)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Every user of the machine can read arguments, and the settings may hold keys, so pass them through stdin.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self._settings.model_dump_json().encode())
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self.stop()
            raise RuntimeError(f"The sandbox did not start (exit status {status}); its errors are above.")
        self._base_url = orjson.loads(line)["base_url"]

    def stop(self) -> None:
        """Stop the server; do nothing without a running server, or in a fork of the process that started the server."""
        process = self._process
        if process is None or os.getpid() != self._owner:
            return
        self._process = None
        self._base_url = ""
        atexit.unregister(self.stop)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        """Call a control endpoint, below `/sandbox/`, and return the decoded reply.

        Raises:
            ValueError: if the sandbox refuses the call.
        """
        # Forks of this process may use the sandbox too, so open a new connection each time. Proxies that the
        # environment names must not apply, so use the standard library's client.
        address = urlsplit(self.base_url)
        with contextlib.closing(HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
            connection.request(method, f"/sandbox/{path}", None if body is None else orjson.dumps(body))
            reply = connection.getresponse()
            answer = orjson.loads(reply.read())
        if reply.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer

    def books(self) -> Books:
        """Return the records of the sandbox so far."""
        answer = self._control("GET", "books")
        return Books(**{**answer, "intervals": [Interval(**interval) for interval in answer["intervals"]]})

    def calls(self, call: str | None = None) -> list[Call]:
        """Return the calls of the API so far, oldest first.

        Args:
            call: name of the calls, such as `batches.create`; `None` for all.
        """
        calls = [Call(**entry) for entry in self._control("GET", "calls")]
        return calls if call is None else [entry for entry in calls if entry.name == call]

    def configure(self, **settings: Any) -> None:
        """Change settings of the running sandbox.

        New durations also hold for batches in progress; only their expiry stays unchanged.

        Args:
            settings: fields of `Settings`.

        Raises:
            ValidationError: if a field is unknown or a value is invalid.
        """
        checked = Settings(**settings)
        self._control("PATCH", "settings", checked.model_dump(mode="json", include=set(settings)))

    def add_fault(self, fault: AnyFault) -> None:
        """Order a fault: of a call, a result line, or a batch."""
        self._control("POST", "faults", fault.model_dump(mode="json"))

    def clear_faults(self) -> None:
        """Remove the faults that have not happened yet; the failures of the settings stay."""
        self._control("DELETE", "faults")

    def settle(self) -> None:
        """Wait until every batch is validated and all answers are written, whatever status the batches show."""
        self._control("POST", "settle")

    def send_webhook(self, url: str, secret: str, batch_id: str, type: str = "batch.completed") -> int:
        """Send a signed webhook about a batch, and return the HTTP status of the reply.

        Args:
            url: address of the receiver.
            secret: secret of the webhook, `whsec_…`.
            batch_id: id of the batch.
            type: type of the event.
        """
        body = {"url": url, "secret": secret, "type": type, "batch_id": batch_id}
        status: int = self._control("POST", "webhooks", body)["status"]
        return status

    def reset(self, settings: Settings | None = None) -> None:
        """Reset the sandbox to an empty state: no files, batches, calls or faults.

        Args:
            settings: new settings; `None` for the settings at the start.
        """
        chosen = self._settings if settings is None else settings
        self._control("POST", "reset", chosen.model_dump(mode="json"))
