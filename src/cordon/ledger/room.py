"""Who has room for a round: by each history alone, and by what plan and budget say to everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cordon.errors import BudgetExceeded
from cordon.ledger.cohorts import History, Reservation, counted
from cordon.privacy.accountants import epsilon_by, epsilons
from cordon.privacy.events import Event, mechanism_of
from cordon.privacy.guarantee import Guarantee


@dataclass(frozen=True)
class ToReserve:
    """What is to be reserved in the ledger called ``ledger``: a round of a run, at the cost of ``event``.

    ``after`` rounds of that cost are to come behind it; ``begun`` says whether earlier ones are reserved
    there. ``unit`` is whose contribution the cost is of, ``grouping`` the digest of how rows are grouped.
    """

    ledger: str
    run: str
    number: int
    event: Event
    after: int
    begun: bool
    unit: str
    grouping: str

    def first(self, rounds: int) -> list[Reservation]:
        """It and those behind it, so many in all, as they will be reserved."""
        numbers = range(self.number, self.number + rounds)
        about = self.unit, self.event, self.grouping
        return [Reservation(self.ledger, self.run, number, *about) for number in numbers]


@dataclass(frozen=True)
class Budget:
    """A lifetime's ``epsilon`` at ``delta``, held against ``accountant``."""

    epsilon: float
    delta: float
    accountant: str

    def cost(self, events: Sequence[Event]) -> float:
        return epsilon_by(self.accountant, events, self.delta)

    def room_for(self, asked: ToReserve, histories: Sequence[History]) -> NDArray[np.bool_]:
        """Who of those that have the ``histories`` takes part [n], as `SiteLedger.reserve` tells.

        BudgetExceeded, with the least that is too much, where nobody has room.
        """
        rest = asked.first(1 + asked.after)
        if asked.begun or self.cost(counted(rest)) > self.epsilon:
            rest = rest[:1]
        after = [counted([*held.reservations, *rest]) for held in histories]
        able = [held.patients for held, events in zip(histories, after, strict=True) if self._fits(events)]
        if able:
            part: NDArray[np.bool_] = np.any(able, axis=0)
            return part
        least = min(after, key=self.cost)
        some = (
            f"{len(rest)} rounds from round {asked.number} on" if len(rest) > 1 else f"round {asked.number}"
        )
        means = Guarantee(asked.unit, self.delta, mechanism_of(least))
        raise BudgetExceeded(
            f"{some} would bring what is spent over all runs"
            f"{', by those who spent least,' if len(histories) > 1 else ''} to "
            f"{means.by_both(*epsilons(least, self.delta))}, which is more than the site's budget for a "
            f"lifetime, {means.budget(self.epsilon)}. The budget is held against "
            f"{self.accountant.upper()}. Nothing was spent."
        )

    def _fits(self, events: Sequence[Event]) -> bool:
        return self.cost(events) <= self.epsilon
