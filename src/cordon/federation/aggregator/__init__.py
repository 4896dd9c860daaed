"""The aggregator: rounds, judgement of updates, averages, checkpoint, registry.

Public: ``cli``, ``record``, ``run``, ``service``.
"""
