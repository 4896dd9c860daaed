"""Candidate alleles as rows of a table: evidence, context, labels, strata."""
