"""Federated, differentially private germline variant scoring."""

__version__ = "0.1.0"
