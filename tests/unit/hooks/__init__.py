"""Tests of `hooks/`."""
