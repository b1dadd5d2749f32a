"""`python -m distilabel_openai_batch.sandbox`: serves a sandbox in the foreground."""

from __future__ import annotations

import argparse
import sys

from .server import serve
from .settings import Settings


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(prog="distilabel_openai_batch.sandbox", description="A local OpenAI Batch API.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen")
    parser.add_argument("--port", type=int, default=8000, help="where to listen, 0 for any free port")
    parser.add_argument("--settings", default="{}", help="a JSON object with the fields of Settings, - to read it")
    parser.add_argument("--announce", action="store_true", help="print one line of JSON with the base_url")
    parser.add_argument("--parent", type=int, help="stop when the process with this id is no longer the parent")
    given = parser.parse_args()
    settings = Settings.model_validate_json(sys.stdin.read() if given.settings == "-" else given.settings)
    serve(settings, given.host, given.port, announce=given.announce, parent=given.parent)


if __name__ == "__main__":
    main()
