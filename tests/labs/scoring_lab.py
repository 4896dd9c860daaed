"""What tests of scoring share: labelled alleles without a table."""

from __future__ import annotations

import numpy as np

from cordon.arrays import Floats
from cordon.scoring.calibrate import Alleles


def snvs(scores: Floats, labels: np.ndarray) -> Alleles:
    """SNVs of no stratum, with raw scores [n] and labels [n]."""
    return Alleles(
        np.asarray(scores, np.float64), np.asarray(labels, np.int8), np.zeros(len(labels), np.bool_)
    )
