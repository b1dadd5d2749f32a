"""Servers of `make interop`: their versions, their installation and their command lines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        query: query of the base URL.
        options: arguments of the LLM.
        forwards_batches: whether batches run at the server behind; else the server answers their requests itself.
        lists_batches: whether a run without the ledger finds the batches.
        keeps_expired_results: whether an expired batch shows the answers that it had.
    """

    name: str
    version: str
    requirements: Sequence[str]
    pythons: Sequence[str]
    model: str
    echoes: bool
    command: Callable[[Path, Path, int, str], list[str]]
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}
    query: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    forwards_batches: bool = False
    lists_batches: bool = True
    keeps_expired_results: bool = True


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


def _litellm(bin: Path, folder: Path, port: int, upstream: str) -> list[str]:
    config = folder / "config.yaml"
    config.write_text(
        f"""
model_list:
- model_name: {MODEL}
  litellm_params: {{model: openai/{MODEL}, api_base: {upstream}, api_key: anything}}
  model_info: {{mode: batch}}
files_settings:
- {{custom_llm_provider: openai, api_base: {upstream}, api_key: anything}}
litellm_settings: {{telemetry: false}}
"""
    )
    return [str(bin / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def _batchlane(bin: Path, folder: Path, port: int, upstream: str) -> list[str]:
    # The addresses of providers are constants of batchlane → replace OpenAI's before the gateway starts.
    start = (
        "from batchlane.adapters.openai_shaped import ROWS;"
        f" object.__setattr__(ROWS['openai'], 'base_url', {upstream!r});"
        f" from batchlane.cli import main; main(['serve', '--port', '{port}', '--storage', {str(folder)!r}])"
    )
    return [str(bin / "python"), "-c", start]


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
    Server(
        name="litellm",
        version="1.108.7",
        requirements=["litellm[proxy]"],
        pythons=["3.12", "3.11", "3.13"],
        model=MODEL,
        echoes=False,
        command=_litellm,
        environment=lambda folder: {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
        query="?custom_llm_provider=openai",
        options={
            "upload_extra": {"custom_llm_provider": "openai"},
            "batch_extra": {"custom_llm_provider": "openai"},
        },
        forwards_batches=True,
    ),
    Server(
        name="batchlane",
        version="0.2.0",
        requirements=["batchlane[serve]"],
        pythons=["3.12", "3.11", "3.13"],
        model=f"openai/{MODEL}",
        echoes=False,
        command=_batchlane,
        environment=lambda folder: {"OPENAI_API_KEY": "anything", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        forwards_batches=True,
        lists_batches=False,
        keeps_expired_results=False,
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
