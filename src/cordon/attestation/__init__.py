"""Proof that the aggregator runs in a confidential VM that its sites have agreed on.

Public: ``binding``, ``cli``, ``client``, ``emulator``, ``evidence``, ``guest``, ``policy``, ``snp_report``.
"""
