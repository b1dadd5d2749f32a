"""Command ui: a live page about the ledger."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from distilabel_openai_batch.cli.application import app
from distilabel_openai_batch.cli.arguments import (
    BaseUrlOption,
    HeaderOption,
    LedgerDirOption,
    OptionalScopeArgument,
    is_selected,
    read_headers,
    select_scopes,
)
from distilabel_openai_batch.cli.output import LOGGER, echo
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.files import ledger_directory

if TYPE_CHECKING:
    from distilabel_openai_batch.ledger.entries import ScopeEntry

_HOST = "127.0.0.1"
_TOKEN_BYTES = 24

_HOW_TO_INSTALL = "pip install 'distilabel-openai-batch[ui]'"


@app.command()
def ui(
    scope: OptionalScopeArgument = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free port.", min=0, max=65535)] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    base_url: BaseUrlOption = None,
    header: HeaderOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Serve a live page about the ledger: jobs, answers over time, failures, costs, and each row.

    The page is served on this machine alone, at an address with a secret token, and loads nothing from elsewhere.
    Prompts come from the input files on the server, when the page requests them.
    """
    try:
        import uvicorn

        from distilabel_openai_batch.engine.scratch import scratch_directory
        from distilabel_openai_batch.ledger.row_pages import RowReader
        from distilabel_openai_batch.operations.input_files import InputFiles
        from distilabel_openai_batch.report import page
        from distilabel_openai_batch.report.ui import LivePage, create_app
    except ImportError as error:
        raise OpenAIBatchError(f"`ui` needs `{error.name}`. Install it: {_HOW_TO_INSTALL}") from None
    if not page.is_installed():
        raise OpenAIBatchError(f"`ui` needs a drawing library. Install it: {_HOW_TO_INSTALL}")
    reader = RowReader(ledger_directory(ledger_dir))
    select_scopes(reader, scope, base_url)

    def select(entries: Sequence[ScopeEntry]) -> list[ScopeEntry]:
        return [entry for entry in entries if is_selected(entry.name, scope, base_url)]

    token = secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise OpenAIBatchError(
            f"Cannot listen on {_HOST}:{port}: {error.strerror}. Choose another --port; 0 picks a free port."
        ) from None
    with (
        listener,
        scratch_directory() as directory,
        closing(InputFiles(directory, LOGGER, read_headers(header))) as prompts,
    ):
        application = create_app(LivePage(reader, prompts, select), token)
        address = f"http://{_HOST}:{listener.getsockname()[1]}/{token}/"
        echo(f"{address}\nThe page shows prompts and answers to everybody who has this address. Stop it with Ctrl+C.")
        if open_browser:
            typer.launch(address)
        # The access log would contain the token.
        config = uvicorn.Config(application, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
