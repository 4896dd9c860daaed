"""What privacy claims rest on: gradients, clip, noise, events, the accountants of their cost, and its words.

Public: ``accountants``, ``clipping``, ``events``, ``gradients``, ``grouping``, ``guarantee``, ``mechanisms``,
``noise_calibration``, ``several_sites``, ``tradeoff``.
"""
