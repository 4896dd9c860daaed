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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context
from functools import lru_cache
from typing import Any

import numpy as np

from cordon.arrays import Floats
from cordon.errors import UserError
from cordon.privacy.groups import mixture_losses
from cordon.privacy.sampled_laplace import renyi_divergence

ADJACENCY = "add or remove one unit"
# What an epsilon may be about: one training, or all that a ledger holds of a unit.
RUN, LIFETIME = "this run", "all runs in the ledger"
GAUSSIAN = "Poisson-sampled Gaussian"
LAPLACE = "Poisson-sampled Laplace"
MECHANISMS = (GAUSSIAN, LAPLACE)
MECHANISM = GAUSSIAN
# The norm p that a unit's contribution is clipped in, so that the mechanism's noise hides it.
NORMS = {GAUSSIAN: 2, LAPLACE: 1}
# The standard deviation of the mechanism's noise of scale 1.
DEVIATIONS = {GAUSSIAN: 1.0, LAPLACE: math.sqrt(2.0)}
ACCOUNTANTS = ("rdp", "pld")
# Beyond these no epsilon is of use: a step of the least noise costs 10 (Laplace) or 90 (Gaussian).
LEAST_NOISE, MOST_NOISE, MOST_STEPS = 0.1, 1e6, 1_000_000
# The most sites that one person's data may be counted at.
MOST_SITES = 100
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
# Mechanism, noise multiplier, sampling rate and steps of a composition of events.
Merged = tuple[tuple[str, float, float, int], ...]


@dataclass(frozen=True)
class Event:
    """``steps`` releases of a noisy sum of clipped contributions over a Poisson sample of the units.

    ``noise_multiplier`` is, for GAUSSIAN, the noise's standard deviation over the L2 clip norm; for
    LAPLACE, its scale b over the L1 clip norm. ``sampling_rate`` is the probability that a unit takes
    part in a step. ``sites`` is at how many sites one person's data may take part in such steps, each with
    its own noise and sampling: all of them compose. It is said of persons, who were at those sites before,
    too: where events name several, the most holds for all of them. What cannot be accounted is refused here.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    mechanism: str = GAUSSIAN
    sites: int = 1  # events in ledgers that name none were written as of one

    def __post_init__(self) -> None:
        _check_mechanism(self.mechanism)
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise UserError(
                f"noise multiplier {self.noise_multiplier} gives no useful epsilon. "
                f"Use one in [{LEAST_NOISE:g}, {MOST_NOISE:g}]."
            )
        if not 0.0 < self.sampling_rate <= 1.0:
            raise UserError(f"sampling rate {self.sampling_rate} is not a probability. Use one in (0, 1].")
        if not (isinstance(self.steps, int) and 1 <= self.steps <= MOST_STEPS):
            raise UserError(
                f"an event of {self.steps} steps cannot be accounted. Use 1 to {MOST_STEPS} steps."
            )
        if not (isinstance(self.sites, int) and 1 <= self.sites <= MOST_SITES):
            raise UserError(
                f"a person at {self.sites} sites cannot be accounted. Use 1 to {MOST_SITES} sites."
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_norm(mechanism: str, norm: int) -> None:
    """UserError where ``mechanism`` cannot be accounted on contributions clipped in the L``norm`` norm."""
    _check_mechanism(mechanism)
    if norm == NORMS[mechanism]:
        return
    if mechanism == LAPLACE:
        raise UserError(
            f"Laplace noise on an L{norm} clip cannot be accounted: it hides a shift by its L1 norm, which "
            f"an L{norm} clip lets grow with the number of parameters. Use an L1 clip, or {GAUSSIAN!r}."
        )
    raise UserError(
        f"Gaussian noise on an L{norm} clip cannot be accounted: it hides a shift by its L2 norm. "
        f"Use an L2 clip, or {LAPLACE!r} on an L1 clip."
    )


def three_digits(value: float, rounding: str) -> str:
    """Three digits; what was spent is rounded up (decimal.ROUND_CEILING), what is left down."""
    return f"{float(Context(prec=3, rounding=rounding).create_decimal_from_float(value)):g}"


def mechanism_of(events: Iterable[Event]) -> str:
    """What stands beside an epsilon that composes ``events``: all of their mechanisms."""
    return all_mechanisms(event.mechanism for event in events)


def all_mechanisms(named: Iterable[str]) -> str:
    """The mechanisms that are ``named`` (one, or several as `mechanism_of` writes them), each once."""
    return " and ".join(sorted({one for name in named for one in name.split(" and ")})) or "no mechanism"


def statement(
    epsilon: float,
    *,
    unit: str,
    delta: float,
    mechanism: str = GAUSSIAN,
    scope: str = "",
    rounding: str = ROUND_CEILING,
) -> str:
    """``epsilon``, to three digits (rounded up; a lower bound: down), with all that must stand beside it.

    ``scope`` is what was composed (RUN, LIFETIME), where it is not the same for all that is told.
    """
    shown = three_digits(epsilon, rounding)
    about = f"unit: one {unit}; delta {delta:g}; {mechanism}; adjacency: {ADJACENCY}"
    return f"epsilon {shown} ({about}{f'; scope: {scope}' if scope else ''})"


def stated_budget(epsilon: float, *, unit: str, delta: float, mechanism: str = GAUSSIAN) -> str:
    """`statement` of an epsilon that somebody set, to the nearest three digits: nothing was spent of it."""
    return statement(epsilon, unit=unit, delta=delta, mechanism=mechanism, rounding=ROUND_HALF_EVEN)


def stated(rdp: float, pld: float | None, *, unit: str, delta: float, mechanism: str, scope: str = "") -> str:
    """`statement` by RDP, and beside it the figure by PLD, where there is one."""
    beside = "" if pld is None else f"; {three_digits(pld, ROUND_CEILING)} by PLD"
    return f"{statement(rdp, unit=unit, delta=delta, mechanism=mechanism, scope=scope)}, by RDP{beside}"


def stated_of(events: Iterable[Event], *, unit: str, delta: float, scope: str) -> str:
    """`stated` of what ``events`` composed come to, by the mechanisms that they are of."""
    events = list(events)
    mechanism = mechanism_of(events)
    return stated(*epsilons(events, delta), unit=unit, delta=delta, mechanism=mechanism, scope=scope)


def at_least(epsilon: float, *, unit: str, delta: float, mechanism: str, confidence: float) -> str:
    """A lower bound, rounded down, with everything that must stand beside it."""
    stated = statement(epsilon, unit=unit, delta=delta, mechanism=mechanism, rounding=ROUND_FLOOR)
    return f"at least {stated}, with confidence {confidence:g}"


def at_sites(events: Iterable[Event], sites: int) -> list[Event]:
    """``events`` as they count for a person at so many sites, each of which released what this one did."""
    return [replace(event, sites=sites) for event in events]


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
                f"{stated_budget(epsilon, unit=unit, delta=delta, mechanism=mechanism)}, by "
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


def _check_mechanism(mechanism: str) -> None:
    if mechanism not in MECHANISMS:
        raise UserError(
            f"mechanism {mechanism!r} cannot be accounted. Use {' or '.join(map(repr, MECHANISMS))}."
        )


def merged(events: Iterable[Event]) -> Merged:
    """Sum the steps of equal events over all sites: composition is commutative, and the cache then hits.

    A sum may pass MOST_STEPS, which bounds what one event may declare and not what a ledger may hold.
    """
    steps: dict[tuple[str, float, float], int] = {}
    events = list(events)
    sites = max((event.sites for event in events), default=1)
    for event in events:
        key = (event.mechanism, event.noise_multiplier, event.sampling_rate)
        steps[key] = steps.get(key, 0) + event.steps * sites
    return tuple((*key, steps[key]) for key in sorted(steps))


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
