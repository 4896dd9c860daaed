"""What an epsilon means, and how it is told: never alone; spent rounded up, bounds from below down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from typing import Any

from cordon.privacy.accountants import epsilons
from cordon.privacy.events import Event, mechanism_of

ADJACENCY = "add or remove one unit"
# What an epsilon may be about: one training, or all that a ledger holds of a unit.
RUN, LIFETIME = "this run", "all runs in the ledger"


@dataclass(frozen=True)
class Guarantee:
    """What stands beside every epsilon: of what unit it is, at which delta, by what noise, and of what all.

    ``mechanism`` is one, or several as `mechanism_of` writes them. ``scope`` is what was composed (RUN,
    LIFETIME), where it is not the same for all that is told.
    """

    unit: str
    delta: float
    mechanism: str
    scope: str = ""
    adjacency: str = ADJACENCY

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Guarantee:
        """What ``said`` (a plan, a record, a certificate, a model) has beside its epsilon."""
        scope = str(said.get("scope", ""))
        return cls(
            str(said["unit"]), float(said["delta"]), str(said["mechanism"]), scope, str(said["adjacency"])
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it by name; a scope only where there is one."""
        return {name: value for name, value in asdict(self).items() if value != ""}

    def statement(self, epsilon: float, rounding: str = ROUND_CEILING) -> str:
        """``epsilon``, which was spent, to three digits, with all that must stand beside it."""
        return f"epsilon {three_digits(epsilon, rounding)} ({self})"

    def budget(self, epsilon: float) -> str:
        """`statement` of an epsilon that somebody set, to the nearest three digits: none of it is spent."""
        return self.statement(epsilon, ROUND_HALF_EVEN)

    def at_least(self, epsilon: float, confidence: float) -> str:
        """`statement` of a lower bound, rounded down."""
        return f"at least {self.statement(epsilon, ROUND_FLOOR)}, with confidence {confidence:g}"

    def by_both(self, rdp: float, pld: float | None) -> str:
        """`statement` by RDP, and beside it the figure by PLD, where there is one."""
        beside = "" if pld is None else f"; {three_digits(pld, ROUND_CEILING)} by PLD"
        return f"{self.statement(rdp)}, by RDP{beside}"

    def __str__(self) -> str:
        scope = f"; scope: {self.scope}" if self.scope else ""
        return (
            f"unit: one {self.unit}; delta {self.delta:g}; {self.mechanism}; "
            f"adjacency: {self.adjacency}{scope}"
        )


def composed_statement(events: Iterable[Event], *, unit: str, delta: float, scope: str = "") -> str:
    """`Guarantee.by_both` of what ``events`` composed come to, by the mechanisms that they are of."""
    events = list(events)
    return Guarantee(unit, delta, mechanism_of(events), scope).by_both(*epsilons(events, delta))


def three_digits(value: float, rounding: str) -> str:
    """Three digits; what was spent is rounded up (decimal.ROUND_CEILING), what is left down."""
    return f"{float(Context(prec=3, rounding=rounding).create_decimal_from_float(value)):g}"
