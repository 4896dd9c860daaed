"""What privacy claims rest on: gradients, clip, noise, and the accountants of their cost.

Public: ``accountants``, ``clipping``, ``gradients``, ``grouping``, ``mechanisms``, ``several_sites``,
``tradeoff``.
"""
