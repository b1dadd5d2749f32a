"""Servers of `make interop`: their versions, their installation and their command lines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Server:
    """A server that speaks the Batch API.

    Attributes:
        name: name on PyPI.
        version: tested release.
        requirements: further packages to install.
        pythons: supported Python versions, the preferred version first.
        model: the server's name of the model.
        echoes: whether the server answers each request with the request's body instead of a completion.
        command: function that returns the command line from the `bin` of the server's virtual environment, a folder, a
            port, and the base URL of a server that answers synchronously.
        environment: function that returns the environment variables of the server from the folder.
    """

    name: str
    version: str
    requirements: Sequence[str]
    pythons: Sequence[str]
    model: str
    echoes: bool
    command: Callable[[Path, Path, int, str], list[str]]
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}


def _aibrix(bin: Path, folder: Path, port: int, upstream: str) -> list[str]:
    return [str(bin / "python"), "-m", "aibrix.metadata.app", "--host", "127.0.0.1", "--port", str(port), "--dry-run"]


def _llama_stack(bin: Path, folder: Path, port: int, upstream: str) -> list[str]:
    config = folder / "run.yaml"
    config.write_text(
        f"""
version: 2
distro_name: interop
apis: [inference, files, batches]
providers:
  inference:
  - provider_id: vllm
    provider_type: remote::vllm
    config: {{base_url: {upstream}, api_token: anything}}
  files:
  - provider_id: localfs
    provider_type: inline::localfs
    config: {{storage_dir: {folder}/files, metadata_store: {{table_name: files, backend: sql}}}}
  batches:
  - provider_id: reference
    provider_type: inline::reference
    config: {{kvstore: {{namespace: batches, backend: kv}}}}
storage:
  backends:
    kv: {{type: kv_sqlite, db_path: {folder}/kv.db}}
    sql: {{type: sql_sqlite, db_path: {folder}/sql.db}}
  stores:
    metadata: {{namespace: registry, backend: kv}}
    inference: {{table_name: inference, backend: sql}}
    conversations: {{table_name: conversations, backend: sql}}
    prompts: {{namespace: prompts, backend: kv}}
    connectors: {{namespace: connectors, backend: kv}}
registered_resources:
  models:
  - {{model_id: {MODEL}, provider_id: vllm, provider_model_id: {MODEL}, model_type: llm}}
server: {{host: 127.0.0.1}}
"""
    )
    return [str(bin / "llama"), "stack", "run", str(config), "--port", str(port)]


SERVERS = [
    Server(
        name="aibrix",
        version="0.8.0",
        requirements=[],
        pythons=["3.12", "3.11", "3.10"],
        model=MODEL,
        echoes=True,
        command=_aibrix,
        environment=lambda folder: {"STORAGE_LOCAL_PATH": str(folder)},
    ),
    Server(
        name="llama-stack",
        version="0.7.3",
        # llama-stack 0.7.3 does not start with mcp 2.
        requirements=["mcp<2"],
        pythons=["3.12", "3.13"],
        model=f"vllm/{MODEL}",
        echoes=False,
        command=_llama_stack,
    ),
]


def interpreter(versions: Sequence[str]) -> str | None:
    """Return the path of the first interpreter of `versions` on the `PATH` or in pyenv; `None` without one."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in versions:
        found = [shutil.which(f"python{version}"), *sorted(map(str, root.glob(f"versions/{version}.*/bin/python")))]
        for path in filter(None, found):
            # A pyenv shim exists for inactive versions too → try the interpreter.
            if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                return path
    return None


def install(server: Server, folder: Path) -> Path | None:
    """Install a server into its own virtual environment, unless an earlier run did.

    Returns:
        The `bin` of the virtual environment; `None` if no supported Python is found.

    Raises:
        subprocess.CalledProcessError: the installation failed.
    """
    environment = folder / f"{server.name}-{server.version}"
    done = environment / ".installed"
    if not done.exists():
        python = interpreter(server.pythons)
        if python is None:
            return None
        subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
        required = [f"{server.name}=={server.version}", *server.requirements]
        subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", *required], check=True)
        done.touch()
    return environment / "bin"
