"""A site's part of a federation.

Public: ``participate``, ``terms``, ``visit``, ``walltime``.
"""
