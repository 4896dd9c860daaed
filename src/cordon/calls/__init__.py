"""VCFs of callers: normalised, gathered, read.

Public: ``callers``, ``gather``, ``head``, ``headers``, ``joint``, ``normalise``, ``own``, ``read``.
"""
