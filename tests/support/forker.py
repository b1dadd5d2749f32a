"""Runs scripts in processes of their own that need not import distilabel: it was imported once, here.

That takes seconds, which each of a hundred runs would pay. Apart from it a script's process is like any other: it leads
a session of its own, and its interpreter ends as interpreters end. Commands come by standard input, one JSON object a
line, and are answered likewise:

    {"run": [PROGRAM, ARGUMENT, …], "environment": {…}, "output": PATH}   {"pid": 17}
    {"poll": 17}                                                          {"code": null}, or how it ended
"""

import json
import os
import runpy
import signal
import sys

import distilabel.steps.tasks  # noqa: F401
from fast_distilabel import hurry

import distilabel_openai_batch.plugin.llm  # noqa: F401


def fork(command: dict) -> int:
    """Starts a script; returns only in this process."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    os.setsid()
    # A shell has its background jobs ignore it, and whatever they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(command["environment"])
    output = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for there, here in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(there, here)
    sys.argv = command["run"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def poll(pid: int) -> int | None:
    """How a script's process ended, as `subprocess` says it; `None` while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    hurry()
    for line in sys.stdin:
        command = json.loads(line)
        answer = {"code": poll(command["poll"])} if "poll" in command else {"pid": fork(command)}
        print(json.dumps(answer), flush=True)
