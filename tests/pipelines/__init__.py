"""Tests of whole pipelines."""
