"""VCFs of callers: normalised, gathered, read.

Public: ``callers``, ``fields``, ``gather``, ``head``, ``headers``, ``joint``, ``normalise``, ``own``,
``read``.
"""
