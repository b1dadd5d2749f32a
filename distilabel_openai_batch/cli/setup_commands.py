"""Commands before a run: estimate, doctor, serve."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from distilabel_openai_batch.cli.app import app
from distilabel_openai_batch.cli.arguments import _LedgerDir
from distilabel_openai_batch.cli.output import _estimates_json, _may_colour, _print_json, _print_table


@app.command()
def estimate(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline's YAML or JSON file.")],
    param: Annotated[
        list[str] | None,
        typer.Option(help="A runtime parameter, as for `distilabel pipeline run`: `step.llm.max_jobs=5`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Say how much a pipeline would ask through the Batch API and what that may cost. Nothing is sent, or bought.

    The steps before the first Tasks are run, here. What the ledger has answered, or under way, is not bought again.
    """
    # distilabel and what it imports warn of each other, to those who cannot mend it.
    warnings.simplefilter("ignore")
    from distilabel_openai_batch.display.tables import estimate_notes, estimates_table
    from distilabel_openai_batch.operations.estimate import estimate_pipeline

    estimates = estimate_pipeline(pipeline, _parameters(param or []), ledger_dir)
    if as_json:
        _print_json(_estimates_json(estimates))
        return
    if not estimates:
        typer.echo("No step of it asks through the Batch API.")
        return
    _print_table(estimates_table, estimates)
    for note in estimate_notes(estimates):
        typer.echo(note)


@app.command()
def doctor(
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="OPENAI_BASE_URL", help="The server's address.", show_default="OpenAI's"),
    ] = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Check versions, ledger, base URL and key, and the server by two small calls that cost nothing."""
    from distilabel_openai_batch.operations.doctor import diagnose
    from distilabel_openai_batch.operations.server import (
        DEFAULT_BASE_URL,
    )

    findings = anyio.run(partial(diagnose, ledger_dir, base_url or DEFAULT_BASE_URL))
    for finding in findings:
        sign, colour = ("✗ ", "red") if finding.mend else ("✓ ", "green")
        typer.secho(sign, fg=colour, nl=False, color=_may_colour())
        typer.echo(f"{finding.subject}: {finding.says}")
        if finding.mend:
            typer.echo(f"  → {finding.mend}")
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    in_progress_seconds: Annotated[float, typer.Option(help="Seconds that each job takes.", min=0)] = 0.0,
    seconds_per_request: Annotated[float, typer.Option(help="Seconds more for each of its requests.", min=0)] = 0.0,
    window_seconds: Annotated[
        float, typer.Option(help="Seconds after which a job expires, with what was answered by then.", min=0)
    ] = 86_400.0,
    fail_share: Annotated[
        float, typer.Option(help="The share of the requests that fail, the same ones each time.", min=0, max=1)
    ] = 0.0,
    fail_status: Annotated[int, typer.Option(help="The HTTP status that they fail with.", min=400, max=599)] = 400,
) -> None:
    """Serve the sandbox: a local server that speaks the Batch API, for trying pipelines without a key or money.

    It answers at once and without thought, unless it is told to take its time, or to fail.
    """
    try:
        from distilabel_openai_batch.sandbox import RequestFailure, Settings
        from distilabel_openai_batch.sandbox import serve as serve_sandbox
    except ImportError as error:
        typer.echo(
            f"The sandbox needs `{error.name}`. Install it: pip install 'distilabel-openai-batch[sandbox]'", err=True
        )
        raise typer.Exit(1) from None
    try:
        failures = [RequestFailure(contains="", share=fail_share, status=fail_status)] if fail_share else []
        settings = Settings(
            in_progress_seconds=in_progress_seconds,
            seconds_per_request=seconds_per_request,
            window_seconds=window_seconds,
            failures=failures,
        )
        serve_sandbox(settings, host=host, port=port)
    except OSError as error:
        typer.echo(f"{host}:{port} cannot be listened on: {error.strerror}. Choose another --port; 0 is any.", err=True)
        raise typer.Exit(1) from None


def _parameters(params: Sequence[str]) -> dict[str, Any]:
    """Runtime parameters as `Pipeline.run` takes them."""
    parameters: dict[str, Any] = {}
    for param in params:
        name, is_given, value = param.partition("=")
        *steps, last = name.split(".")
        if not is_given or not steps:
            raise typer.BadParameter(f"{param!r} is not `step.parameter=value`.", param_hint="--param")
        place = parameters
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return parameters
