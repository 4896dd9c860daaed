"""What Cordon itself wrote into a scored VCF, taken away where that file is given as calls.

Text is str that was decoded as Latin-1, in which every byte is a character, or never left ASCII.
"""

from __future__ import annotations

import re

from cordon.calls.callers import PREFERENCE

LOW_SCORE, REVIEW, REPEAT = "CORDONLowScore", "CORDONReview", "CORDONRepeat"
SCORE, CALLED_BY, FILTERED_BY = "CORDON", "CORDON_CALLERS", "CORDON_FILTERS"
REPEATS = "CORDON_REPEATS"
# A part of every name of ours in a record, and the header lines that declare or tell of them.
MARK = b"CORDON"
DECLARED = re.compile(rb"##(?:CORDON=|CORDON_calls=<ID=Scored,|(?:INFO|FILTER)=<ID=CORDON)")
SCORED_BEFORE = (
    b'##CORDON_calls=<ID=Scored,Description="Scores that Cordon had written before were taken away, and '
    b'FILTER is again what the caller wrote">\n'
)


def filters_told(filters: dict[str, str]) -> str:
    """The callers' own FILTER values as one value of INFO: caller:values, commas between."""
    return ",".join(f"{caller}:{value.replace(';', '&')}" for caller, value in sorted(filters.items()))


def without_scores(filters: str, info: str) -> tuple[str, str]:
    """FILTER and INFO of a record as its caller wrote them: without any score of ours.

    The caller is the first of PREFERENCE among those that we said called the allele: the record was its own.
    """
    if SCORE not in info and SCORE not in filters:
        return filters, info
    parts = [] if info == "." else info.split(";")
    own = dict(part.partition("=")[::2] for part in parts if _ours(part))
    if own:
        info = ";".join(part for part in parts if not _ours(part)) or "."
    if CALLED_BY in own:
        callers = own[CALLED_BY].split(",")
        first = next((caller for caller in PREFERENCE if caller in callers), "")
        told = dict(entry.partition(":")[::2] for entry in own.get(FILTERED_BY, "").split(","))
        return told.get(first, ".").replace("&", ";"), info
    kept = [name for name in filters.split(";") if not name.startswith(SCORE)]
    return ";".join(kept) or ".", info


def _ours(part: str) -> bool:
    name = part.partition("=")[0]
    return name == SCORE or name.startswith(f"{SCORE}_")
