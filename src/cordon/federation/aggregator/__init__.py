"""The aggregator: rounds, judgement of updates, averages, checkpoint, registry."""
