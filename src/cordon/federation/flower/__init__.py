"""Flower, behind one door: its SuperLink, SuperNodes, tasks and messages' objects.

Public: ``bounds``, ``collecting``, ``processes``, ``signatures``, ``tasks``.
"""
