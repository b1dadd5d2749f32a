"""Prices of tokens, estimates of requests, costs of jobs, and budgets."""
