"""The noise that a budget buys: the least whose steps, with all that was spent before, cost no more.

Formal guarantee: what `calibrate_noise` returns never costs more than it was given, by the accountant that
is named, for it asks that one; how near it comes is a matter of utility alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cordon.errors import UserError
from cordon.privacy.accountants import epsilon_by
from cordon.privacy.events import GAUSSIAN, LEAST_NOISE, MOST_NOISE, Event, at_sites
from cordon.privacy.guarantee import Guarantee


def calibrate_noise(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    mechanism: str = GAUSSIAN,
    sites: int = 1,
    accountant: str = "rdp",
    spent: Iterable[Sequence[Event]] = (),
    budget: float | None = None,
    besides: Iterable[Event] = (),
    unit: str = "unit",
) -> float:
    """The smallest noise multiplier, from LEAST_NOISE on, whose ``steps`` at ``sites`` cost ``epsilon``.

    And with each of ``spent``, events that were composed before, at most ``budget`` (None: ``epsilon``). With
    the events ``besides`` they do. Never above by ``accountant``, and within 1 % of what is left but where
    even LEAST_NOISE costs less, or where epsilon jumps to 0 because delta alone covers the loss. UserError,
    which names what one ``unit`` is, where no noise can do that.
    """
    if not epsilon > 0:
        raise UserError(f"epsilon {epsilon} leaves nothing to spend. Give a budget above 0.")
    if not 0 < delta < 1:
        raise UserError(f"delta {delta} is not a probability. Give one in (0, 1), below 1 / units.")
    # A history's cost counts as the part of the budget that it is, and a hair more, lest rounding hide it.
    scale, fixed = epsilon / (budget or epsilon) * (1.0 + 1e-12), list(besides)
    parts = [(1.0, fixed), *((scale, [*events, *fixed]) for events in spent if events)]
    # A person at several sites was there before, too.
    before = [
        (part, at_sites(events, max([sites, *(event.sites for event in events)]))) for part, events in parts
    ]
    held = max(part * epsilon_by(accountant, events, delta) for part, events in before)
    room = epsilon - held

    def cost(noise: float) -> float:
        event = Event(noise, sampling_rate, steps, mechanism, sites)
        return max(part * epsilon_by(accountant, [*events, event], delta) for part, events in parts) - held

    # The bracket keeps too little noise below and enough above, whatever the curve between them.
    below = above = 1.0
    most = spends = cost(1.0)
    while spends > room:
        if above == MOST_NOISE:
            raise UserError(
                f"no noise keeps {steps} steps{'' if sites == 1 else f', at each of {sites} sites,'} within "
                f"{Guarantee(unit, delta, mechanism).budget(epsilon)}, by "
                f"{accountant.upper()}{', beside what was spent before' if held else ''}. Raise epsilon, or "
                "lower the number of steps."
            )
        below, most, above = above, spends, min(2.0 * above, MOST_NOISE)
        spends = cost(above)
    while most <= room:
        if below == LEAST_NOISE:
            return LEAST_NOISE
        above, spends, below = below, most, max(0.5 * below, LEAST_NOISE)
        most = cost(below)
    # Between logarithms the curve is nearly straight: a line through the last two points finds the place in a
    # few looks. Each fourth halves the bracket, where it is not.
    last, looks = [(below, most), (above, spends)], 0
    while above > below * (1.0 + 1e-6) and spends < room * (1.0 - 1e-4):
        middle, looks = math.sqrt(below * above), looks + 1
        (noise, costs), (other, others) = last
        if looks % 4 and costs != others and min(costs, others) > 0.0 and max(costs, others) < math.inf:
            share = math.log(room * (1.0 - 5e-5) / others) / math.log(others / costs)
            aimed = other * math.exp(min(share * math.log(other / noise), 700.0))
            middle = aimed if below < aimed < above else middle
        if (tried := cost(middle)) > room:
            below = middle
        else:
            above, spends = middle, tried
        last = [last[1], (middle, tried)]
    return above
