"""What attackers learn from a run: attacks, lower bounds of epsilon, and the certificate of a model.

Public: ``certificate``, ``cli``, ``self_test``.
"""
