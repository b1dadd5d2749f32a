"""Tests of `plugin/steps/`."""
