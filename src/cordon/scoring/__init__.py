"""Scores of a sample's candidates: calibrated, and written as a VCF.

Public: ``calibrate``, ``calibration``, ``private_calibration``, ``score``.
"""
