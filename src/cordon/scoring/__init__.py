"""Scores of a sample's candidates: calibrated, and written as a VCF.

Public: ``calibrate``, ``private_calibration``, ``score``.
"""
