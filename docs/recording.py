"""Record a terminal session against the sandbox as `docs/assets/recording.svg`, the picture of README and quickstart.

    python docs/recording.py

The session runs `examples/pipeline.py`, interrupts the run while the first job is in progress, runs the script again,
and lists the jobs. All output is real. The picture leaves out distilabel's own log lines, the time and the file name
that distilabel's log adds to each line, and pauses above `LONGEST_PAUSE_SECONDS`.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text
from sandbox_environment import sandbox_environment

from distilabel_openai_batch.sandbox import Settings

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "assets" / "recording.svg"

# Seconds of each job at the sandbox.
JOB_TIMES = Settings(validating_seconds=0.5, in_progress_seconds=4.0, finalizing_seconds=0.5)
# Ctrl+C follows the second progress line of the first run.
PROGRESS_SIGN = "⏳"
LINES_BEFORE_CTRL_C = 2

COLUMNS = 112
LONGEST_PAUSE_SECONDS = 0.8

# With colours, each line of distilabel's log ends with a link to the source file, which tells the package's own lines.
_OWN_SOURCE = "/distilabel_openai_batch/"
_LOG_LINE = re.compile(r".*(?:INFO|WARNING|ERROR) +\['[\w.-]+'\] (?P<message>.*?) +\w+\.py:\d+ *")

# The terminal of `rich` without its fonts, which readers would load from another host.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
@keyframes appear {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}
.{unique_id}-matrix text {{ animation: appear 1ms linear backwards; }}
@media (prefers-reduced-motion: reduce) {{ .{unique_id}-matrix text {{ animation: none; }} }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
_ID = "recording"
_LINE_OF_TEXT = re.compile(rf'clip-path="url\(#{_ID}-line-(\d+)\)"(?=>)')


class Session:
    """A terminal's lines, each with the moment when the line appeared."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._lines: list[tuple[float, Text]] = []

    def run(self, shown: str, *command: str | Path, interrupt: bool = False, is_log: bool = False) -> None:
        """Run a command, and add a prompt and the command's output.

        Args:
            shown: The command as a reader would type it.
            command: The command that runs.
            interrupt: Whether to press Ctrl+C after `LINES_BEFORE_CTRL_C` lines of progress.
            is_log: Whether the output is a pipeline's log, of which the package's own lines are added alone.
        """
        self._add(Text.assemble(("$ ", "bold green"), (shown, "bold")))
        with subprocess.Popen(
            list(map(str, command)),
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if is_log else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            progress = 0
            for line in process.stdout:
                if (text := own_message(line) if is_log else Text.from_ansi(line.rstrip())) is None:
                    continue
                self._add(text)
                progress += PROGRESS_SIGN in text.plain
                if interrupt and progress == LINES_BEFORE_CTRL_C:
                    self._add(Text("^C", "bold red"))
                    os.killpg(process.pid, signal.SIGINT)
                    interrupt = False
        self._add(Text())

    def _add(self, line: Text) -> None:
        self._lines.append((time.monotonic(), line))

    def picture(self) -> str:
        """Return the terminal as SVG: each line appears at the line's moment, and without animation all are there."""
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
        moments, last, now = [], self._lines[0][0], 0.0
        for moment, line in self._lines[:-1]:
            now += min(moment - last, LONGEST_PAUSE_SECONDS)
            last = moment
            height = len(line.wrap(console, COLUMNS)) or 1
            moments += [now] * height
            console.print(line)
        svg = console.export_svg(title="examples/pipeline.py against the sandbox", code_format=_SVG, unique_id=_ID)
        return _LINE_OF_TEXT.sub(
            lambda found: f'{found[0]} style="animation-delay: {moments[int(found[1])]:.1f}s"', svg
        )


def own_message(line: str) -> Text | None:
    """Return the message of a log line of this package; `None` for any other line."""
    text = Text.from_ansi(line.rstrip())
    found = _LOG_LINE.fullmatch(text.plain)
    if _OWN_SOURCE not in line or found is None:
        return None
    return text[found.start("message") : found.end("message")]


def main() -> None:
    """Record the session, and write the picture."""
    program = Path(sys.executable)
    # The log must not wrap lines.
    with sandbox_environment(JOB_TIMES, FORCE_COLOR="1", COLUMNS="500") as (_, environment):
        session = Session(environment)
        pipeline = (program, ROOT / "examples" / "pipeline.py")
        session.run("python examples/pipeline.py", *pipeline, is_log=True, interrupt=True)
        session.run("python examples/pipeline.py   # the same script again", *pipeline, is_log=True)
        command_line = program.with_name("distilabel-openai-batch")
        session.run("distilabel-openai-batch jobs", program, command_line, "jobs")
    PICTURE.write_text(session.picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
