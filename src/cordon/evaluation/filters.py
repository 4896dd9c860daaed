"""What callers' filters and Cordon's keep of the alleles of a variant table: one element a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cordon.arrays import Bools
from cordon.calls.callers import CALLERS
from cordon.variants.caller_scores import called_by


def filters(table: pa.Table) -> dict[str, Bools]:
    """What each filter keeps [n]: the union of all callers, each caller without and with its own filter,
    and where the table has them Cordon's PASS, and PASS or review.
    """
    kept = {"no filter": np.ones(table.num_rows, dtype=np.bool_)}
    for caller in CALLERS:
        if (called := called_by(table, caller)).any():
            kept[f"{caller} unfiltered"] = called
            kept[caller] = called & _bools(table, f"{caller}_pass")
    if "cordon_pass" in table.schema.names:
        kept["cordon"] = _bools(table, "cordon_pass")
    if "cordon_review" in table.schema.names:
        kept["cordon review"] = kept["cordon"] | _bools(table, "cordon_review")
    return kept


def _bools(table: pa.Table, name: str) -> Bools:
    """A bool column with False for null."""
    return np.array(table[name].fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)
