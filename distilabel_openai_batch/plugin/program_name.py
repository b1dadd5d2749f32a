"""Name of the running script or notebook, by which the ledger finds its earlier answers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_UNNAMED_NOTEBOOK = "notebook"

# Programs that run the kernel of a notebook. Earlier releases took their names for the name of the notebook.
_KERNEL_LAUNCHERS = ("ipykernel_launcher.py", "colab_kernel_launcher.py")

_NOTEBOOK_SUFFIX = ".ipynb"


def program_name() -> str:
    """Return the name of the script's or notebook's file; `notebook` if the kernel does not know the file."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return _notebook_name() if name in _KERNEL_LAUNCHERS else name


def former_program_names() -> tuple[str, ...]:
    """Return the names that earlier releases gave to the running script or notebook."""
    name = Path(sys.argv[0]).name if sys.argv else ""
    return (name,) if name in _KERNEL_LAUNCHERS else ()


def _notebook_name() -> str:
    # Visual Studio Code sets a variable in the notebook, Jupyter's server a variable in the environment of its kernels:
    # https://github.com/microsoft/vscode-jupyter/pull/8531, https://github.com/jupyter-server/jupyter_server/pull/679
    main = vars(sys.modules["__main__"])
    for path in (main.get("__vsc_ipynb_file__"), os.environ.get("JPY_SESSION_NAME")):
        if isinstance(path, str) and path.endswith(_NOTEBOOK_SUFFIX):
            return path.replace("\\", "/").rpartition("/")[2]
    return _UNNAMED_NOTEBOOK
