"""The command line, `distilabel-openai-batch`.

It imports neither distilabel nor, before a server is to be asked, the SDK: both take their time.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from distilabel_openai_batch import __version__
from distilabel_openai_batch.cli.output import _may_colour
from distilabel_openai_batch.errors import OpenAIBatchError

if TYPE_CHECKING:
    pass


class _Commands(TyperGroup):
    """The one boundary between our errors and the user, who is told what is wrong and sees no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenAIBatchError as error:
            typer.secho(str(error), err=True, fg=typer.colors.RED, color=_may_colour())
            raise typer.Exit(1) from None


app = typer.Typer(
    name="distilabel-openai-batch",
    cls=_Commands,
    help="Run distilabel pipelines through the OpenAI Batch API.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _commands(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Run distilabel pipelines through the OpenAI Batch API.

    These commands look at the ledger, in which every run writes down what it asks, buys and is answered. They can be
    used while a pipeline runs. Those that ask a server take the key from $OPENAI_API_KEY.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a log may not have each letter: better a `?` there than nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
