"""A sandbox in a process of its own, and the handle that tests hold it by."""

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
    """A running sandbox, as a context manager.

    Examples:
        ```python
        from openai import OpenAI

        from distilabel_openai_batch.sandbox import Sandbox

        with Sandbox() as sandbox:
            client = OpenAI(base_url=sandbox.base_url, api_key="anything")
            print(client.batches.list().data)
        ```

    Args:
        settings: how it behaves; the defaults of `Settings` if not given.
        port: where to listen; 0 for any free port.
    """

    def __init__(self, settings: Settings | None = None, *, port: int = 0) -> None:
        self._settings = Settings() if settings is None else settings
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._base_url = ""

    @property
    def base_url(self) -> str:
        """The base URL for a client, such as `http://127.0.0.1:8000/v1`."""
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
        """Starts the server; returns once it listens.

        Raises:
            RuntimeError: if it does not come up.
        """
        if self._process is not None:
            raise RuntimeError("The sandbox is running already.")
        # Wherever this package was imported from, the child is to find it there too.
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        arguments = ["--port", str(self._port), "--announce", "--parent", str(os.getpid())]
        arguments += ["--settings", "-"]
        self._owner = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", __package__, *arguments],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl+C in a terminal is for the program under test; this one is stopped by its parent.
            start_new_session=True,
        )
        atexit.register(self.stop)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Not as an argument, which everyone on the machine could read: the settings may hold keys.
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self._settings.model_dump_json().encode())
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self.stop()
            raise RuntimeError(f"The sandbox did not start (exit status {status}); its errors are above.")
        self._base_url = orjson.loads(line)["base_url"]

    def stop(self) -> None:
        """Stops the server. Does nothing if it is not running, or in a fork of the process that started it."""
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

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Calls one of the control endpoints.

        Raises:
            ValueError: if the sandbox does not understand.
        """
        # A new connection each time, by the standard library: forks of this process may use the handle too, and no
        # proxy settings of the environment apply.
        address = urlsplit(self.base_url)
        with contextlib.closing(HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
            connection.request(method, f"/sandbox/{path}", None if body is None else orjson.dumps(body))
            reply = connection.getresponse()
            answer = orjson.loads(reply.read())
        if reply.status != 200:
            raise ValueError(answer["error"]["message"])
        return answer

    def books(self) -> Books:
        """Returns what the sandbox did so far."""
        answer = self._ask("GET", "books")
        return Books(**{**answer, "intervals": [Interval(**interval) for interval in answer["intervals"]]})

    def calls(self, call: str | None = None) -> list[Call]:
        """Returns the calls of the API so far, oldest first.

        Args:
            call: the name of the calls wanted, such as `batches.create`; `None` for all.
        """
        calls = [Call(**entry) for entry in self._ask("GET", "calls")]
        return calls if call is None else [entry for entry in calls if entry.name == call]

    def configure(self, **settings: Any) -> None:
        """Changes settings while running. New times hold for the batches under way too, their expiry excepted.

        Args:
            settings: fields of `Settings`.
        """
        checked = Settings(**settings)
        self._ask("PATCH", "settings", checked.model_dump(mode="json", include=set(settings)))

    def add_fault(self, fault: AnyFault) -> None:
        """Makes something go wrong: a call, a result line, or a batch."""
        self._ask("POST", "faults", fault.model_dump(mode="json"))

    def clear_faults(self) -> None:
        """Forgets the faults that have not happened yet; the failures of the settings stay."""
        self._ask("DELETE", "faults")

    def settle(self) -> None:
        """Returns once every batch so far is validated and its answers are written, whatever its status shows."""
        self._ask("POST", "settle")

    def reset(self, settings: Settings | None = None) -> None:
        """Forgets everything, as if it had just been started.

        Args:
            settings: how it behaves from now on; as at its start if not given.
        """
        chosen = self._settings if settings is None else settings
        self._ask("POST", "reset", chosen.model_dump(mode="json"))
