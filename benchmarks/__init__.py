"""Everything that takes part, measured side by side against the sandbox: `python -m benchmarks`, or `make bench`.

Nothing here is part of the package, or calls any server but the sandbox.
"""
