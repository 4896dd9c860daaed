"""A consortium's papers: what it is for, who asks to take part, and what all of them agreed on.

Public: ``cli``, ``plan_cli``, ``run_cli``.
"""
