"""Structured output: schemas in requests, checks of answers, and requests that repair answers."""
