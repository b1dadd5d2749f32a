"""The Typer application that the commands register with.

Importing the command line imports neither distilabel nor the SDK, which take seconds: commands import them when needed.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distilabel_openai_batch import __version__
from distilabel_openai_batch.cli.output import echo
from distilabel_openai_batch.errors import OpenAIBatchError


class _ErrorReportingGroup(TyperGroup):
    """Command group that prints an `OpenAIBatchError` as a sentence, without a traceback, and exits with code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenAIBatchError as error:
            echo(str(error), err=True, fg=typer.colors.RED)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="distilabel-openai-batch",
    cls=_ErrorReportingGroup,
    help="Run distilabel pipelines through the OpenAI Batch API.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(is_given: bool) -> None:
    if is_given:
        echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run distilabel pipelines through the OpenAI Batch API.

    The commands read the ledger, in which every run records its requests, batches and answers. They can be used while
    a pipeline runs. Commands that call a server take the key from $OPENAI_API_KEY.
    """
    for stream in (sys.stdout, sys.stderr):
        # The stream's encoding lacks a character → print `?` instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
