"""One small driver for each contender, run in a process of its own: `python -m benchmarks.contenders.NAME`.

Each goes through the contender's public API, with the settings that suit it best against a server that answers at once:
one job for as many requests as it allows, and the shortest pauses that it lets one choose.
"""
