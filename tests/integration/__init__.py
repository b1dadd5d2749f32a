"""Tests of the package against the sandbox."""
