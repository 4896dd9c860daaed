"""How rows become privacy units, and what delta so many allow: public things alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_FLOOR, Context, Decimal

from cordon.errors import UserError

UNITS = ("patient", "variant")

# Delta is the probability that a whole unit may be released: times a site's declared units, it is refused
# above the one, and somebody should know above the other.
MOST_DELTA, USUAL_DELTA = 0.1, 1e-3


def declared_units(unit: str, declared_patients: int, most_rows: int) -> int:
    """The public number of units at a site that declared so many patients, of ``most_rows`` at most each."""
    return declared_patients * (most_rows if unit == "variant" else 1)


def check_delta(site: str, delta: float, units: int) -> str:
    """What to warn of at a site that declared so many ``units``; UserError where ``delta`` is refused."""
    limit = passed_limit(delta, units)
    if limit is None:
        return ""
    said = (
        f"site {site}: delta {delta:g} is above {limit:g} over its {units} declared units: with that "
        f"probability a whole unit may be released. Use at most {usual_delta(units)}."
    )
    if limit == MOST_DELTA:
        raise UserError(said)
    return said


def passed_limit(delta: float, units: int) -> float | None:
    """The greater of MOST_DELTA and USUAL_DELTA that ``delta`` times so many units is above, if any.

    Exactly at a limit, it is not above, however the product is rounded.
    """
    least = delta * units / (1.0 + 1e-9)
    return next((limit for limit in (MOST_DELTA, USUAL_DELTA) if least > limit), None)


def usual_delta(units: int) -> str:
    """The most that is not warned of over so many units, to two digits, rounded down."""
    return f"{float(Context(prec=2, rounding=ROUND_FLOOR).divide(Decimal(repr(USUAL_DELTA)), units)):g}"


def other_ids(one_id: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The other ids of patients who go by one, as ``one_id`` (`cordon.variants.same_person`) says."""
    also: dict[str, tuple[str, ...]] = {}
    for other, name in one_id.items():
        if other != name:
            also[name] = (*also.get(name, ()), other)
    return also


@dataclass(frozen=True)
class Grouping:
    """How rows become units: by which unit, for which model, and the most rows that a step takes of one.

    All of it is public, and so is ``declared``, the units that the site's owner declared.
    """

    unit: str
    model: str
    most_rows: int
    declared: int

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
