"""What attackers learn from a run's releases: attacks, lower bounds of epsilon, and the certificate of a model."""
