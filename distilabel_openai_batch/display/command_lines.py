"""Commands that a run advises to call, as lines that a shell takes."""

from __future__ import annotations

import shlex


def command_line(command: str, scope: str = "", ledger_dir: str | None = None, **options: str | None) -> str:
    """Return the line that calls a command of `distilabel-openai-batch`.

    Args:
        command: name of the command.
        scope: the scope's name on the command line; empty for all scopes.
        ledger_dir: directory of the ledger that the user chose; `None` for the default directory.
        options: values of further options by name, with `_` in place of `-` and at the end of a keyword of Python;
            `None` leaves an option out.
    """
    parts = ["distilabel-openai-batch", command, *([shlex.quote(scope)] if scope else [])]
    for name, value in {**options, "ledger_dir": ledger_dir}.items():
        if value:
            parts.append(f"--{name.rstrip('_').replace('_', '-')} {shlex.quote(value)}")
    return " ".join(parts)
