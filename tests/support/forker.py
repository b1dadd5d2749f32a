"""Fork a process for each script, so that no script imports distilabel again.

The import takes seconds, and the tests run a hundred scripts. Otherwise the process of a script is an ordinary process:
it leads its own session, and its interpreter shuts down normally. Commands and replies are JSON objects, one per line
of standard input and output:

    {"run": [PROGRAM, ARGUMENT, …], "environment": {…}, "output": PATH}   {"pid": 17}
    {"poll": 17}                                                          {"code": null}, or the exit code
"""

import gc
import json
import os
import runpy
import signal
import sys

import distilabel.steps.tasks  # noqa: F401
import scipy.sparse  # noqa: F401  (each pipeline imports the package when it sorts its steps)
from fast_distilabel import speed_up_distilabel

import distilabel_openai_batch.plugin.llm  # noqa: F401


def fork(command: dict) -> int:
    """Start a script and return the id of its process; the function returns in the parent process only."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    os.setsid()
    # A shell's background jobs and their children ignore SIGINT → restore the default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(command["environment"])
    output = os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    empty_input = os.open(os.devnull, os.O_RDONLY)
    for opened, standard in ((empty_input, 0), (output, 1), (output, 2)):
        os.dup2(opened, standard)
    sys.argv = command["run"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


def poll(pid: int) -> int | None:
    """Return the exit code of a script's process, in the convention of `subprocess`; `None` while the process runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    speed_up_distilabel()
    # Each process of a pipeline collects garbage when it ends. Imported modules are left out: half of the time.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        command = json.loads(line)
        reply = {"code": poll(command["poll"])} if "poll" in command else {"pid": fork(command)}
        print(json.dumps(reply), flush=True)
