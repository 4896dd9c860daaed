"""What attackers learn from a run: attacks, lower bounds of epsilon, and the certificate of a model."""
