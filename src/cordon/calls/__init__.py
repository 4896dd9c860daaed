"""VCFs of callers: normalised, gathered, read.

Public: ``callers``, ``gather``, ``headers``, ``joint``, ``normalise``, ``read``.
"""
