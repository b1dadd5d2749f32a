"""The figures of the report, one module each, with one function `measure` that makes it."""
