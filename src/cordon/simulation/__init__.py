"""A simulated consortium of hospitals: reference, patients, reads with realistic errors, and the truth.

Public: what stands below.
"""

from cordon.simulation.cohort import CohortPlan, Patient, simulate_cohort

__all__ = ["CohortPlan", "Patient", "simulate_cohort"]
