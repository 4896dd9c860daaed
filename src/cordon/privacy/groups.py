"""The privacy loss of one step for several units together: a mixture of Gaussians.

Each of ``size`` units is in the step by a coin of its own, so that the number of them that are is binomial,
and clipped sums of that many move by at most as many clips. N(j, noise²) for a binomial j, as against
N(0, noise²), dominates such a step, and no smaller pair does (Ganesh 2024, arXiv:2401.10294); steps
compose. dp-accounting has this mixture too, but looks for each loss by a search of its own, which takes
minutes on a fine grid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, ndtr
from scipy.stats import binom

from cordon.arrays import Floats

if TYPE_CHECKING:
    from dp_accounting.pld.pld_pmf import PLDPmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

# Beyond so many deviations there is a mass of 2e-23 on either side, which is added to delta.
FAR = 10.0
# Places to look at the mixture, at most, and of the grid's interval the part that lies between two.
MOST_PLACES, INTERVAL_PART = 1_000_000, 0.5


def mixture_losses(noise: float, rate: float, size: int, interval: float) -> PrivacyLossDistribution:
    """The losses of one step for ``size`` units, added or removed together, both directions; an upper bound.

    ``noise`` is in clips, ``rate`` each unit's probability to be in, ``interval`` the grid's, in nats.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    shifts = np.arange(size + 1.0)
    weights = binom.pmf(shifts, size, rate)
    finest = INTERVAL_PART * interval * noise**2 / size  # a loss grows by size / noise² at most
    span = size + 2.0 * FAR * noise
    places = np.linspace(-FAR * noise, size + FAR * noise, min(MOST_PLACES, math.ceil(span / finest) + 2))
    exponents = (shifts[:, None] * places - shifts[:, None] ** 2 / 2.0) / noise**2
    losses = logsumexp(exponents, axis=0, b=weights[:, None])
    above = ndtr((shifts[:, None] - places) / noise)
    below = ndtr((places - shifts[:, None]) / noise)
    # The best test between the two tells them apart at one place, where the loss is what it is there.
    removed = weights @ above - np.exp(losses) * above[0]
    added = below[0] - np.exp(-losses) * (weights @ below)
    return PrivacyLossDistribution(
        _on_grid(losses, removed, interval), _on_grid(-losses[::-1], added[::-1], interval)
    )


def _on_grid(losses: Floats, deltas: Floats, interval: float) -> PLDPmf:
    """Losses on a grid, from delta at each of increasing ``losses`` as epsilon.

    Delta is convex in e^epsilon, so that a chord lies above it ("connect the dots", as dp-accounting does).
    """
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap

    first, last = math.ceil(losses[0] / interval), math.ceil(losses[-1] / interval)
    epsilons = np.arange(first, last + 1) * interval
    falling = np.minimum.accumulate(np.clip(deltas, 0.0, 1.0))
    bounds = np.interp(np.exp(epsilons), np.exp(losses), falling)
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, first, last, bounds)
