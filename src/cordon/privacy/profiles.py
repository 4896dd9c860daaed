"""Beyond one epsilon: delta at every epsilon, and the epsilon of several units together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from cordon.arrays import Floats
from cordon.privacy.accountants import (
    MOST_LOSS,
    ROUNDING,
    composed,
    farthest_loss,
    interval_of,
    loss_span,
    renyi_curve,
    renyi_orders,
)
from cordon.privacy.events import LAPLACE, Event, Merged, merged


def privacy_profile(events: Iterable[Event], delta: float, points: int) -> tuple[Floats, Floats]:
    """Epsilons [points] from 0 to that of ``events`` composed at ``delta``, and bounds of delta at each.

    Upper bounds, the less of what both accountants say, by PLD on `epsilon_pld`'s grid. A single
    point where epsilon is 0.
    """
    epsilons, deltas = _privacy_profile(merged(events), delta, points)
    return np.array(epsilons), np.array(deltas)


def epsilon_group(events: Iterable[Event], delta: float, size: int) -> float:
    """Epsilon of ``events`` composed for ``size`` units, all added or all removed; infinite where beyond use.

    An upper bound by PLD. Units are in a step by coins of their own. For Gaussian noise the bound is tight
    (`cordon.privacy.groups`). For Laplace noise it is the less of two that are not: all of them in
    wherever one is, which divergences' joint convexity allows, and ``size`` times the epsilon at delta 0.
    """
    return _epsilon_group(merged(events), delta, size)


@lru_cache(maxsize=64)
def _privacy_profile(events: Merged, delta: float, points: int) -> tuple[list[float], list[float]]:
    from dp_accounting.rdp.rdp_privacy_accountant import compute_delta, compute_epsilon

    if not events:
        return [0.0], [0.0]
    orders, curve = renyi_orders(), renyi_curve(events)
    last = float(compute_epsilon(orders, curve, delta)[0])
    losses = composed(events, interval_of(events))
    lost = ROUNDING * sum(steps for *_, steps in events)
    if delta > lost:
        last = min(last, float(losses.get_epsilon_for_delta(delta - lost)))
    epsilons = np.linspace(0.0, last, points).tolist() if last > 0 else [0.0]
    bounds = [
        min(
            float(losses.get_delta_for_epsilon(epsilon)) + lost,
            float(compute_delta(orders, curve, epsilon)[0]),
        )
        for epsilon in epsilons
    ]
    if last > 0:  # by RDP too, whose two conversions differ
        bounds[-1] = min(bounds[-1], delta)
    return epsilons, bounds


@lru_cache(maxsize=256)
def _epsilon_group(events: Merged, delta: float, size: int) -> float:
    if not events:
        return 0.0
    resolved = delta - ROUNDING * sum(steps for *_, steps in events)
    if resolved < delta / 2 or loss_span(events, size) > MOST_LOSS:
        return math.inf
    losses = composed(events, interval_of(events, size), size)
    found = float(losses.get_epsilon_for_delta(resolved))
    if any(mechanism != LAPLACE for mechanism, *_ in events):
        return found
    pure = [steps * farthest_loss(mechanism, noise, rate) for mechanism, noise, rate, steps in events]
    return min(found, size * sum(pure))
