"""Names of scripts and notebooks."""

from __future__ import annotations

import sys
import types

import pytest

from distilabel_openai_batch.plugin.program_name import former_program_names, program_name

KERNEL = "/env/lib/python3.11/site-packages/ipykernel_launcher.py"


@pytest.fixture
def set_program(monkeypatch):
    """Return a function that sets the program's path, the notebook's variables and the environment's session."""

    def set_all(path: str, variables: dict[str, object], session: str | None) -> None:
        monkeypatch.setattr(sys, "argv", [path])
        main = types.ModuleType("__main__")
        main.__dict__.update(variables)
        monkeypatch.setitem(sys.modules, "__main__", main)
        monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
        if session:
            monkeypatch.setenv("JPY_SESSION_NAME", session)

    return set_all


@pytest.mark.parametrize(
    ("path", "variables", "session", "name"),
    [
        ("scripts/ask.py", {}, "folder/other.ipynb", "ask.py"),
        (KERNEL, {}, "folder/analysis.ipynb", "analysis.ipynb"),
        (KERNEL, {"__vsc_ipynb_file__": "/home/me/analysis.ipynb"}, None, "analysis.ipynb"),
        (KERNEL, {"__vsc_ipynb_file__": "C:\\work\\analysis.ipynb"}, None, "analysis.ipynb"),
        (KERNEL, {"__vsc_ipynb_file__": 7}, "console-1", "notebook"),
        (KERNEL, {}, None, "notebook"),
    ],
    ids=["script", "Jupyter", "Visual Studio Code", "Windows", "console", "unknown"],
)
def test_a_program_has_the_name_of_its_file(set_program, path, variables, session, name):
    set_program(path, variables, session)
    assert program_name() == name
    assert former_program_names() == (("ipykernel_launcher.py",) if path == KERNEL else ())
