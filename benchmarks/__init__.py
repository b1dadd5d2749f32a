"""Benchmarks of every contender against the sandbox: `python -m benchmarks`, or `make bench`.

The benchmarks are not part of the package and call no server but the sandbox.
"""
