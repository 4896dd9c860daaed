"""What was spent, by whom, on whom, and by what code: chained, signed rows that outlive a run.

Public: ``cohorts``, ``database``, ``hash_chain``, ``log``, ``provenance``, ``pseudonyms``, ``rows``,
``site``, ``spending``.
"""
