"""Flower, behind one door: its SuperLink, SuperNodes, tasks and messages' objects.

Public: ``processes``, ``signatures``, ``tasks``.
"""
