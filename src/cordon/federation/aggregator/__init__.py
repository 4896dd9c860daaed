"""The aggregator: rounds, judgement of updates, averages, checkpoint, registry.

Public: ``attendance``, ``cli``, ``record``, ``registry``, ``run``, ``service``.
"""
