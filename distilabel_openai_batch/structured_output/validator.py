"""Validation of answers against a JSON schema, in a process that can be killed if the validation may be slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.structured_output.schema_cost import SchemaCost

ERRORS_SHOWN = 5
"""Number of an answer's errors that are returned."""

SLOW_SECONDS = 2.0
"""Seconds of computing time for one answer in the process of slow validations. Any other answer takes milliseconds."""

_SLOW_SECONDS_AFTER_MANY = 0.1
# Number of killed validations in this process until further ones get less time: each row may bring its own schema.
_MANY = 10

# Exit code after an idle minute: SIGALRM is number 14 on every POSIX system.
_IDLE_EXIT = -14

# Seconds until a silent process is killed, for systems without a limit of computing time and for stopped processes.
_SILENT_SECONDS = 60.0

# `-I` and the same search path → the process imports the same package, and nothing from the working directory.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:];"
    " from distilabel_openai_batch.structured_output.validating_process import main; main()"
)


class ValidationFailedError(Exception):
    """Validation that was ended, or a schema that cannot be applied; no other answer of the model helps."""


class SchemaValidator:
    """Validator of answers against one JSON schema, which never takes long.

    Args:
        schema: a valid JSON schema.
        cost: the cost of the schema.

    Attributes:
        may_block: whether a validation may block its thread for `SLOW_SECONDS`, and for as long as other threads wait
            for theirs.
    """

    def __init__(self, schema: dict[str, Any], cost: SchemaCost) -> None:
        self._schema = schema
        self.may_block = cost.may_be_slow
        self._is_too_slow = False
        self._validator = None if cost.may_be_slow else create_validator(schema)

    def list_errors(self, value: object) -> list[str]:
        """Return up to `ERRORS_SHOWN` errors of a JSON value, each with its place; an empty list for a valid value.

        Raises:
            ValidationFailedError: the validation was ended, for this or for an earlier value, or the schema cannot be
                applied, for example because of a reference to nowhere.
            RunError: the process of slow validations cannot run.
        """
        if self._validator is not None:
            try:
                return describe_errors(self._validator, value)
            except Exception as error:
                raise ValidationFailedError(f"{type(error).__name__}: {error}") from None
        if self._is_too_slow:
            # Each further answer could take as long → reject without another validation.
            raise ValidationFailedError("its validation took too long for an earlier answer")
        reply = _process.validate(self._schema, value)
        if reply is None:
            self._is_too_slow = True
            raise ValidationFailedError("its validation takes too long, or too much memory")
        if "failure" in reply:
            raise ValidationFailedError(reply["failure"])
        errors: list[str] = reply["errors"]
        return errors


def create_validator(schema: dict[str, Any]) -> Any:
    """Return jsonschema's validator of the schema's own draft, which fetches no reference to another host."""
    return validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())


def describe_errors(validator: Any, value: object) -> list[str]:
    """Return up to `ERRORS_SHOWN` errors of a value, in the order of their places."""
    errors = sorted(validator.iter_errors(value), key=lambda error: [str(part) for part in error.path])
    return [f"{error.json_path}: {error.message}" for error in errors[:ERRORS_SHOWN]]


class _ValidatingProcess:
    """Process that validates values one after the other, and ends when a validation takes too long.

    Python holds its interpreter lock while a regular expression is searched, so no thread could end the search.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._killed = 0

    def validate(self, schema: dict[str, Any], value: object) -> dict[str, Any] | None:
        """Return the reply of `validating_process`; `None` if the validation took too long.

        Raises:
            RunError: the process cannot run.
        """
        with self._lock:
            seconds = SLOW_SECONDS if self._killed < _MANY else _SLOW_SECONDS_AFTER_MANY
            request = {"schema": schema, "value": value, "seconds": seconds}
            while True:
                process = self._running_process()
                reply = _exchange(process, request)
                if reply is not None:
                    return reply
                if process.returncode > 0:
                    raise RunError(f"The process that validates answers ended with exit code {process.returncode}.")
                # The process ends itself after an idle minute, perhaps just now → start another process.
                if process.returncode != _IDLE_EXIT:
                    self._killed += 1
                    return None

    def _running_process(self) -> subprocess.Popen[bytes]:
        # A fork of this process must not read replies to its parent.
        process = self._process if self._owner == os.getpid() else None
        if process is None or process.poll() is not None:
            process = self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-c", _PROGRAM, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
        return process


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> dict[str, Any] | None:
    """Send a request and return its reply; `None` if the process ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    stop = threading.Timer(_SILENT_SECONDS, process.kill)
    stop.daemon = True
    stop.start()
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = b""
    finally:
        stop.cancel()
    if line.endswith(b"\n"):
        reply: dict[str, Any] = json.loads(line)
        return reply
    process.kill()
    process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    return None


_process = _ValidatingProcess()
