"""Displays of a run: log lines, advice, tables and bars."""
