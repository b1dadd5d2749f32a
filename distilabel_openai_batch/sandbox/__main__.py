"""Command `python -m distilabel_openai_batch.sandbox`: serve a sandbox in the foreground."""

from __future__ import annotations

import argparse
import sys
import textwrap

from pydantic import BaseModel, ValidationError

from .dialect import Dialect
from .server import serve
from .settings import RequestFailure, Settings

_HELP_WIDTH = 100


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m distilabel_openai_batch.sandbox",
        description="Serve a local OpenAI Batch API.",
        epilog="\n\n".join(_describe_fields(model) for model in (Settings, RequestFailure, Dialect)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen at; 0 for any free port")
    parser.add_argument(
        "--settings", default="{}", help="JSON object with fields of Settings; - to read the object from stdin"
    )
    parser.add_argument("--log", action="store_true", help="print a line for each call of the API")
    parser.add_argument(
        "--announce", action="store_true", help="print one line of JSON with the base_url instead of a text"
    )
    parser.add_argument("--parent", type=int, help="stop when the parent process no longer has this id")
    options = parser.parse_args()
    try:
        settings = Settings.model_validate_json(sys.stdin.read() if options.settings == "-" else options.settings)
    except ValidationError as error:
        parser.error(f"--settings: {error}")
    try:
        serve(settings, options.host, options.port, announce=options.announce, parent=options.parent, log=options.log)
    except OSError as error:
        sys.exit(
            f"Cannot listen on {options.host}:{options.port}: {error.strerror}. Choose another --port; 0 picks a free "
            "port."
        )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port: a port is 0 to 65535")
    return port


def _describe_fields(model: type[BaseModel]) -> str:
    """Return the name, the default and the description of each field, in lines for a terminal."""
    lines = [f"Fields of {model.__name__}:"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else field.get_default()
        shown = "" if isinstance(default, BaseModel) else f" ({default})"
        text = f"{name}{shown}: {field.description}"
        lines += textwrap.wrap(text, _HELP_WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
