"""A consortium's papers: what it is for, who asks to take part, and what all of them agreed on.

Public: ``kit``, ``operator``, ``request``, ``signed``, ``study``.
"""
