"""Epsilon from recorded events, by Rényi DP and by privacy loss distributions, side by side.

Adjacency everywhere: one unit's whole contribution is added or removed. Epsilons are never added;
events are composed. dp-accounting does the mathematics, but for the Rényi curve of Poisson-sampled
Laplace noise, which it has not (`cordon.privacy.sampled_laplace`), and the losses of a group
(`cordon.privacy.groups`).

Formal guarantee: whoever sees all that was released, at events that public things fixed and where each
release may depend on those before it (adaptive composition), tells two neighbouring data sets apart by no
more than (epsilon, delta) allows. `epsilon_rdp` and `epsilon_pld` are both upper bounds, PLD's the tighter
one. Events are of Poisson samples and fixed normalisers; nothing is claimed of data that were used otherwise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from cordon.arrays import Floats
from cordon.errors import UserError
from cordon.privacy.events import GAUSSIAN, LAPLACE, Event, Merged, merged
from cordon.privacy.groups import mixture_losses
from cordon.privacy.sampled_laplace import renyi_divergence

ACCOUNTANTS = ("rdp", "pld")
# The PLD accountant's grid: its interval over the spread of one step's loss, and the most nats it may be,
# which raise epsilon by less than 0.1 %. Laplace noise puts much of a step's probability on its farthest
# loss, which each step's rounding raises by an interval: there it is finer. And about the most points that
# the losses of a step, or of all, may take, for time and memory.
FINENESS, MOST_POINTS = 0.01, 300_000
WIDEST_INTERVAL = {GAUSSIAN: 1e-3, LAPLACE: 1e-4}
# Delta that floating-point convolution may lose in a step; at most 2e-17 a step was ever measured, with
# a million steps composed at once.
ROUNDING = 1e-16
# Beyond this epsilon, which promises nothing any more, the PLD accountant can take minutes.
MOST_FOR_PLD = 50.0
# Losses in nats beyond which no loss distribution is of use: e to them is near the largest number.
MOST_LOSS = 600.0


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon of ``events`` composed, by the RDP accountant (0 for no events)."""
    return _epsilon_rdp(merged(events), delta)


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """Epsilon of ``events`` composed, by the PLD accountant (0 for no events).

    An upper bound: losses are rounded pessimistically ("connect the dots", Doroshenko et al. 2022,
    arXiv:2207.04380) and ROUNDING is taken off ``delta`` for every step. Where that leaves less than
    half of ``delta``, and where epsilon is so large that the grid must be coarse, RDP's epsilon is the
    lower bound of the two and is returned.
    """
    return _epsilon_pld(merged(events), delta)


def epsilons(events: Iterable[Event], delta: float) -> tuple[float, float | None]:
    """Epsilon of ``events`` composed, by RDP and by PLD: None where RDP's is above MOST_FOR_PLD."""
    composed = merged(events)
    rdp = _epsilon_rdp(composed, delta)
    return rdp, _epsilon_pld(composed, delta) if rdp <= MOST_FOR_PLD else None


def epsilon_by(accountant: str, events: Iterable[Event], delta: float) -> float:
    """Epsilon of ``events`` composed, by ``accountant``: what a budget is held against.

    Above MOST_FOR_PLD it is RDP's, which bounds PLD's. UserError where no accountant is called so.
    """
    if accountant not in ACCOUNTANTS:
        raise UserError(f"no accountant is called {accountant!r}. Use one of: {', '.join(ACCOUNTANTS)}.")
    if accountant == "rdp":
        return epsilon_rdp(events, delta)
    rdp, pld = epsilons(events, delta)
    return rdp if pld is None else pld


@lru_cache(maxsize=4096)
def _epsilon_rdp(events: Merged, delta: float) -> float:
    from dp_accounting.rdp import compute_epsilon

    if not events:
        return 0.0
    return float(compute_epsilon(renyi_orders(), renyi_curve(events), delta)[0])


@lru_cache(maxsize=4096)
def _epsilon_pld(events: Merged, delta: float) -> float:
    resolved = delta - ROUNDING * sum(steps for *_, steps in events)
    if not events or resolved < delta / 2:
        return _epsilon_rdp(events, delta)
    losses = composed(events, interval_of(events))
    return min(float(losses.get_epsilon_for_delta(resolved)), _epsilon_rdp(events, delta))


def composed(events: Merged, interval: float, size: int = 1) -> Any:
    """The privacy loss distribution of ``events`` for ``size`` units, on a grid of that interval."""
    losses, *others = [_losses(*event, interval, size) for event in events]
    for other in others:
        losses = losses.compose(other)
    return losses


def _losses(mechanism: str, noise: float, rate: float, steps: int, interval: float, size: int = 1) -> Any:
    """The privacy loss distribution of ``steps`` steps for ``size`` units, both directions of adjacency."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if mechanism == GAUSSIAN and rate == 1.0:
        return pld.from_gaussian_mechanism(noise / math.sqrt(steps), float(size), True, interval)
    step = _step_losses(mechanism, noise, rate, interval, size)
    # In two stages: composing at once, dp-accounting's bound on the tails of many small losses is so loose
    # that it takes gigabytes, and its convolution loses more of delta than it adds for those tails.
    stage = math.isqrt(steps)
    losses = step.self_compose(stage).self_compose(steps // stage)
    return losses.compose(step.self_compose(steps % stage)) if steps % stage else losses


@lru_cache(maxsize=16)
def _step_losses(mechanism: str, noise: float, rate: float, interval: float, size: int) -> Any:
    """The privacy loss distribution of one step: most of the work, and the same for however many steps."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if mechanism == LAPLACE:
        some = 1.0 - (1.0 - rate) ** size if size > 1 else rate
        return pld.from_laplace_mechanism(noise, float(size), True, interval, some)
    if size > 1:
        return mixture_losses(noise, rate, size, interval)
    return pld.from_gaussian_mechanism(noise, 1.0, True, interval, sampling_prob=rate)


def interval_of(events: Merged, size: int = 1) -> float:
    """The interval of the grid that the losses of ``events`` are rounded to, in nats.

    A fixed one overstates the cost of many small losses (rounding adds its own variance to each), and
    takes gigabytes for large ones.
    """
    orders, curve = renyi_orders(), renyi_curve(events)
    first = int(np.argmax(np.isfinite(curve)))
    # Near order 1, a step's divergence is about half of its loss's variance.
    variance = 2.0 * curve[first] / orders[first] / sum(steps for *_, steps in events)
    widest = min(WIDEST_INTERVAL[mechanism] for mechanism, *_ in events)
    finest = size * min(FINENESS * math.sqrt(variance), widest)
    return max(finest, loss_span(events, size) / MOST_POINTS, 1e-9)


def loss_span(events: Merged, size: int) -> float:
    """About how far the losses of all steps, and of each, reach; of a group about its size squared."""
    from dp_accounting.rdp import compute_epsilon

    together = size**2 * float(compute_epsilon(renyi_orders(), renyi_curve(events), 1e-12)[0])
    each = [farthest_loss(mechanism, noise, rate, size) for mechanism, noise, rate, _ in events]
    return max(together, 2.0 * max(each))


def farthest_loss(mechanism: str, noise: float, rate: float, size: int = 1) -> float:
    """The farthest loss of a step: dp-accounting cuts the Gaussian's tail at 10 deviations."""
    far = size * (size / 2 + 10.0 * noise) / noise**2 if mechanism == GAUSSIAN else size / noise
    some = 1.0 - (1.0 - rate) ** size if size > 1 else rate
    return math.log1p(some * math.expm1(far)) if far < MOST_LOSS else far


@lru_cache(maxsize=1)
def renyi_orders() -> Floats:
    from dp_accounting.rdp import RdpAccountant

    return np.asarray(RdpAccountant().orders, dtype=np.float64)


def renyi_curve(events: Merged) -> Floats:
    """The Rényi divergence of ``events`` composed, at each of `renyi_orders` (infinite where unknown)."""
    total = np.zeros_like(renyi_orders())
    for *step, steps in events:
        total += steps * _step_curve(*step)
    return total


@lru_cache(maxsize=1024)
def _step_curve(mechanism: str, noise: float, rate: float) -> Floats:
    from dp_accounting import GaussianDpEvent, LaplaceDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    if mechanism == LAPLACE and rate < 1.0:
        return np.array([renyi_divergence(noise, rate, order) for order in renyi_orders().tolist()])
    release = GaussianDpEvent(noise) if mechanism == GAUSSIAN else LaplaceDpEvent(noise)
    with _without_order_warnings():
        step = PoissonSampledDpEvent(rate, release) if rate < 1.0 else release
        curve: Floats = RdpAccountant().compose(step).rdp
    return np.maximum(curve, 0.0)  # at a vanishing rate, rounding leaves less than nothing


@contextmanager
def _without_order_warnings() -> Iterator[None]:
    """dp-accounting warns of each Rényi order that it leaves out, which only loosens the bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
