"""What a site has and lacks before its first run: programs, files, and the way to the aggregator.

Public: ``cli``.
"""
