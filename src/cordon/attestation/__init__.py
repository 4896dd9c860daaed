"""Proof that the aggregator runs in a confidential VM that its sites have agreed on."""
