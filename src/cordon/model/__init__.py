"""The variant-scoring model: architectures, initial weights, and the file in which a trained one travels.

Public: ``architectures``, ``devices``, ``initial_weights``, ``released``, ``statement``.
"""
