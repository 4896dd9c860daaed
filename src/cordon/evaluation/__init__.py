"""How well a score tells real alleles from false ones.

Public: ``callset``, ``evaluate``.
"""
