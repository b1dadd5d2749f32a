"""Tests of `display/`."""
