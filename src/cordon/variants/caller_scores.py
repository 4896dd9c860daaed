"""What callers say of the alleles of a variant table, as scores: one element a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cordon.arrays import Bools, Floats
from cordon.calls.callers import CALLERS

KINDS = ("qual", "qd")
# Of an allele that the caller called without the number, and of one that it did not call. Numbers that are
# known are above: QUAL and QD are never negative.
UNKNOWN, SILENT = -1.0, -2.0


def caller_scores(table: pa.Table) -> dict[str, Floats]:
    """Each caller's QUAL and QD as scores of all rows, higher meaning more likely real.

    An allele that a caller did not call ranks below every allele that it called, and one that it called
    without a QD ranks between: a caller's silence is its strongest statement that an allele is not real. A
    score that no row has is left out.
    """
    scores = {}
    for caller in CALLERS:
        called = called_by(table, caller)
        for kind in KINDS:
            values = floats(table, f"{caller}_{kind}")
            known = called & np.isfinite(values)
            if known.any():
                kept = np.where(known, np.maximum(values, 0.0), UNKNOWN)
                scores[f"{caller} {kind.upper()}"] = np.where(called, kept, SILENT)
    return scores


def called_by(table: pa.Table, caller: str) -> Bools:
    """Which rows [n] the caller called."""
    called: Bools = pc.match_substring_regex(table["callers"], f"(^|;){caller}(;|$)").to_numpy()
    return called


def floats(table: pa.Table, name: str) -> Floats:
    """A column of numbers as float64 [n], NaN for null."""
    return np.array(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
