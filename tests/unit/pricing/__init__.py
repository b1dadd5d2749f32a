"""Tests of `pricing/`."""
