"""VCFs of callers: normalised, gathered, read."""
