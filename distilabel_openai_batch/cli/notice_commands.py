"""Command `listen`, and the command that `watch` runs at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from distilabel_openai_batch.cli.application import app
from distilabel_openai_batch.cli.arguments import ExecOption, LedgerDirOption
from distilabel_openai_batch.cli.output import echo
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.files import ledger_directory


def run_after_watch(command: str, jobs: Sequence[JobEntry]) -> None:
    """Run a command with the ended jobs as JSON on its standard input; end with an error if the command fails."""
    from distilabel_openai_batch.display.notices import NoticeError, send_notice

    facts = {
        "event": "jobs.ended",
        "requests": sum(job.requests for job in jobs),
        "answered": sum(job.answered for job in jobs),
        "failed": sum(job.failed for job in jobs),
        "batches": [{"id": job.batch_id, "status": job.status, "scope": job.scope.label} for job in jobs],
    }
    try:
        send_notice(command, facts)
    except NoticeError as error:
        echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def listen(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free port.", min=0, max=65535)] = 8765,
    command: ExecOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Listen for OpenAI's webhooks about batches, and let runs with this ledger poll their jobs at once.

    $OPENAI_WEBHOOK_SECRET is the secret of the webhook. Each signature is verified. Needs openai 1.92 or newer.
    """
    from distilabel_openai_batch.display.notices import NoticeError, send_notice
    from distilabel_openai_batch.engine.wake import wake_runs
    from distilabel_openai_batch.operations.webhooks import WebhookReceiver, create_server

    secret = os.getenv("OPENAI_WEBHOOK_SECRET", "").strip()
    if not secret:
        raise typer.BadParameter("$OPENAI_WEBHOOK_SECRET is not set. OpenAI shows the secret of a new webhook once.")
    directory = ledger_directory(ledger_dir)

    def handle(kind: str, batch_id: str) -> None:
        echo(f"{kind} {batch_id}")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            wake_runs(directory)
            if command:
                send_notice(command, {"event": kind, "batch_id": batch_id})
        except (NoticeError, OSError) as error:
            echo(str(error), err=True)

    try:
        server = create_server(WebhookReceiver(secret, handle), host, port)
    except OSError as error:
        echo(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another --port; 0 picks a free port.", err=True)
        raise typer.Exit(1) from None
    with server:
        echo(f"Listening for webhooks at http://{host}:{server.server_port}. Stop with Ctrl+C.")
        server.serve_forever()
