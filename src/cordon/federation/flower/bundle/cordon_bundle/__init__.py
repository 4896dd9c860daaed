"""Holds no code: sites and aggregator run what they have installed, never what they were sent."""

app = None
