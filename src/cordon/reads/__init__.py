"""Reads of a sample: checked, sorted, marked, indexed.

Public: ``checks``, ``duplicates``, ``normalise``.
"""
