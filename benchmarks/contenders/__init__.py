"""Drivers of the contenders, each run in a process of its own: `python -m benchmarks.contenders.NAME`.

A driver calls the public API of its contender with the best settings for a server that answers without delay: the
largest jobs and the shortest pauses that the contender allows.
"""
