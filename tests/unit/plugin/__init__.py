"""Tests of `plugin/`."""
