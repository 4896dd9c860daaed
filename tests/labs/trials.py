"""How often a statistical test repeats what it counts: a quarter of the full number, or all of it.

CORDON_TRIALS=full repeats them all. What a test may find is computed from the number that it makes, so that
right code fails no more often with few, and a planted bug must be found with few, too.
"""

import os

FULL = os.environ.get("CORDON_TRIALS") == "full"


def trials(full: int) -> int:
    """``full``, or a quarter of it where nobody asked for all."""
    return full if FULL else full // 4
