"""The command line, `distilabel-openai-batch`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="distilabel-openai-batch",
    help="Run distilabel pipelines through the OpenAI Batch API.",
    no_args_is_help=True,
    add_completion=True,
)


@app.callback()
def _commands() -> None:
    """Run distilabel pipelines through the OpenAI Batch API."""


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
) -> None:
    """Serve the sandbox: a local server that speaks the Batch API, for trying pipelines without a key or money."""
    try:
        from distilabel_openai_batch.sandbox import Settings
        from distilabel_openai_batch.sandbox import serve as serve_sandbox
    except ImportError as error:
        typer.echo(
            f"The sandbox needs `{error.name}`. Install it: pip install 'distilabel-openai-batch[sandbox]'", err=True
        )
        raise typer.Exit(1) from None
    serve_sandbox(Settings(), host=host, port=port)
