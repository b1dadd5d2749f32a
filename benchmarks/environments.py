"""Command that creates a virtual environment, `.venv-bench/NAME`, for each contender in `PEERS`.

    python -m benchmarks.environments

If an installation fails, the others continue, and the report lists the contender as not installed.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.plans import PEERS
from benchmarks.runs import ENVIRONMENTS


def main() -> None:
    """Create each environment that is missing or has other requirements than `PEERS`."""
    for name, requirements in PEERS.items():
        folder = ENVIRONMENTS / name
        installed, wanted = folder / "requirements.txt", "\n".join(requirements)
        if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
            continue
        print(f"Installing {', '.join(requirements)} …", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(Path(folder, "bin", "python")), "-m", "pip", "install", "--quiet", *requirements]
        if subprocess.run(pip).returncode:
            print(f"{name} could not be installed and will not be measured.", file=sys.stderr)
            continue
        installed.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
