"""Candidate alleles as rows of a table: evidence, context, labels, strata.

Public: ``caller_scores``, ``context``, ``encode``, ``features``, ``known_sites``, ``labels``,
``pileup_images``, ``same_person``, ``spellings``, ``strata``, ``table``.
"""
