"""Tests of the documentation, the examples and the benchmarks."""
