"""Command `python -m distilabel_openai_batch.sandbox`: serve a sandbox in the foreground."""

from __future__ import annotations

import argparse
import sys

from .server import serve
from .settings import Settings


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="distilabel_openai_batch.sandbox", description="Serve a local OpenAI Batch API."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0 for any free port")
    parser.add_argument(
        "--settings", default="{}", help="JSON object with fields of Settings; - to read the object from stdin"
    )
    parser.add_argument(
        "--announce", action="store_true", help="print one line of JSON with the base_url instead of a text"
    )
    parser.add_argument("--parent", type=int, help="stop when the parent process no longer has this id")
    options = parser.parse_args()
    settings = Settings.model_validate_json(sys.stdin.read() if options.settings == "-" else options.settings)
    serve(settings, options.host, options.port, announce=options.announce, parent=options.parent)


if __name__ == "__main__":
    main()
