"""Figures of the report: one module per figure, whose function `measure` returns the figure."""
