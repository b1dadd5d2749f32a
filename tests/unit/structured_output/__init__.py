"""Tests of `structured_output/`."""
