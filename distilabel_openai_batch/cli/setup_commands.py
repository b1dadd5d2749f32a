"""Commands before a run: estimate, doctor, serve."""

from __future__ import annotations

import os
import warnings
from functools import partial
from typing import Annotated

import anyio
import typer

from distilabel_openai_batch.cli.application import app
from distilabel_openai_batch.cli.arguments import (
    HeaderOption,
    LedgerDirOption,
    parse_aliases,
    parse_parameters,
    read_headers,
)
from distilabel_openai_batch.cli.output import echo, print_json, print_table


@app.command()
def estimate(
    pipeline: Annotated[str, typer.Argument(help="YAML, JSON or Python file of the pipeline, or `module:pipeline`.")],
    param: Annotated[
        list[str] | None,
        typer.Option(help="Runtime parameter, as for `distilabel pipeline run`: `step.llm.max_jobs=5`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Estimate the requests that a pipeline would send to the Batch API, and their cost. Nothing is sent or billed.

    The steps run on this machine, with placeholder answers behind a Task. A Python file is imported, and stops where it
    calls `pipeline.run`. Requests that the ledger has as answered or in progress are counted as known: a run does not
    submit them again. A Task whose prompts contain answers of an earlier Task has no known requests here, also if the
    ledger has its answers.
    """
    # distilabel and its dependencies warn about each other → the user cannot fix these warnings.
    warnings.simplefilter("ignore")
    from distilabel_openai_batch.cli.json_output import estimates_json
    from distilabel_openai_batch.display.estimates import estimate_notes, estimates_table
    from distilabel_openai_batch.operations.estimate import estimate_pipeline

    estimates = estimate_pipeline(pipeline, parse_parameters(param or []), ledger_dir)
    if as_json:
        print_json(estimates_json(estimates))
        return
    if not estimates:
        echo("No step of the pipeline uses the Batch API.")
        return
    print_table(estimates_table, estimates)
    for note in estimate_notes(estimates):
        echo(note)


@app.command()
def doctor(
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            envvar="OPENAI_BASE_URL",
            help="Address of the server.",
            show_default="Azure's in $AZURE_OPENAI_ENDPOINT, else OpenAI's",
        ),
    ] = None,
    header: HeaderOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Check the versions, the ledger, the base URL, the key, and the server by two small calls that cost nothing."""
    from distilabel_openai_batch.operations.doctor import diagnose
    from distilabel_openai_batch.operations.server_access import default_address

    findings = anyio.run(partial(diagnose, ledger_dir, base_url or default_address(), read_headers(header)))
    for finding in findings:
        sign, colour = ("✗ ", "red") if finding.fix else ("✓ ", "green")
        echo(sign, fg=colour, nl=False)
        echo(f"{finding.subject}: {finding.text}")
        if finding.fix:
            echo(f"  → {finding.fix}")
    if any(finding.fix for finding in findings):
        raise typer.Exit(1)


# long: each option of the command is a parameter
@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free port.", min=0, max=65535)] = 8000,
    in_progress_seconds: Annotated[float, typer.Option(help="Seconds that each batch stays in progress.", min=0)] = 0.0,
    seconds_per_request: Annotated[
        float, typer.Option(help="Additional seconds for each request of a batch.", min=0)
    ] = 0.0,
    window_seconds: Annotated[
        float, typer.Option(help="Seconds after which a batch expires with the answers that it has by then.", min=0)
    ] = 86_400.0,
    fail_share: Annotated[
        float, typer.Option(help="Share of requests that fail. The same requests fail each time.", min=0, max=1)
    ] = 0.0,
    fail_status: Annotated[int, typer.Option(help="HTTP status of failed requests.", min=400, max=599)] = 400,
    answer_tokens: Annotated[
        int, typer.Option(help="Least number of tokens of each text. A lower `max_new_tokens` cuts the text.", min=0)
    ] = 0,
    reasoning_tokens: Annotated[
        int,
        typer.Option(
            help="Tokens of reasoning at medium effort. A lower `max_new_tokens` leaves an empty answer.", min=0
        ),
    ] = 300,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL",
            help="Name of a deployment or of a gateway, and the model behind it, which decides the accepted parameters;"
            " may be repeated.",
        ),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Print a line for each call of the API.")] = False,
    dialect: Annotated[
        str | None,
        typer.Option(
            help="Server that the sandbox imitates: `openai`, `azure`, `azure-v1`, `together` or another one.",
            show_default="Azure's if $AZURE_OPENAI_ENDPOINT is set and $OPENAI_BASE_URL is not, else openai",
        ),
    ] = None,
) -> None:
    """Serve the sandbox: a local server with the Batch API, for trying pipelines without a key and without cost.

    The sandbox answers at once and with placeholder texts, unless options set delays or failures. Answers report tokens
    as OpenAI bills them, the prompt cache included.
    """
    try:
        from distilabel_openai_batch.sandbox import RequestFailure, Settings
        from distilabel_openai_batch.sandbox import serve as serve_sandbox
    except ImportError as error:
        echo(f"The sandbox needs `{error.name}`. Install it: pip install 'distilabel-openai-batch[sandbox]'", err=True)
        raise typer.Exit(1) from None
    try:
        failures = [RequestFailure(contains="", share=fail_share, status=fail_status)] if fail_share else []
        settings = Settings(
            in_progress_seconds=in_progress_seconds,
            seconds_per_request=seconds_per_request,
            window_seconds=window_seconds,
            failures=failures,
            answer_tokens=answer_tokens,
            reasoning_tokens=reasoning_tokens,
            aliases=parse_aliases(alias or ()),
            dialect=dialect or _default_dialect(),  # type: ignore[arg-type]
            prompt_cache=True,
        )
        serve_sandbox(settings, host=host, port=port, log=log)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        echo(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port; 0 picks a free port.", err=True)
        raise typer.Exit(1) from None


def _default_dialect() -> str:
    """Return the dialect of the server that the environment names: Azure's for an endpoint on Azure."""
    from distilabel_openai_batch.api.azure_addresses import read_azure_endpoint

    endpoint = os.getenv("AZURE_OPENAI_ENDPOINT", "").strip()
    if not endpoint or os.getenv("OPENAI_BASE_URL", "").strip():
        return "openai"
    return "azure-v1" if read_azure_endpoint(endpoint).is_versioned else "azure"
