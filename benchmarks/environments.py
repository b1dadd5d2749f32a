"""Makes an environment for each contender that is a package of its own: `.venv-bench/NAME`, with pip.

    python -m benchmarks.environments

One that cannot be made does not stop the others: the results say that it was not installed.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.plans import PEERS
from benchmarks.runs import ENVIRONMENTS


def main() -> None:
    """Makes those that are not there in the versions asked for."""
    for name, requirements in PEERS.items():
        folder = ENVIRONMENTS / name
        done, wanted = folder / "requirements.txt", "\n".join(requirements)
        if done.exists() and done.read_text(encoding="utf-8") == wanted:
            continue
        print(f"Installing {', '.join(requirements)} …", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "install", "--quiet", *requirements]
        if subprocess.run(pip).returncode:
            print(f"{name} could not be installed, and does not take part.", file=sys.stderr)
            continue
        done.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
