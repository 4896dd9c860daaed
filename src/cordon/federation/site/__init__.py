"""A site's part of a federation.

Public: ``participate``, ``walltime``.
"""
