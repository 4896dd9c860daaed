"""Epsilon from recorded events, by Rényi DP and by privacy loss distributions, side by side.

Adjacency everywhere: one unit's whole contribution is added or removed. Epsilons are never added;
events are composed (dp-accounting does the mathematics).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Context
from functools import lru_cache
from typing import Any

from cordon.errors import UserError

ADJACENCY = "add or remove one unit"
MECHANISM = "Poisson-sampled Gaussian"
# Beyond these the accountants return nothing finite, or not in a bearable time and memory: below a
# noise multiplier of 0.1 one event can take the PLD accountant minutes, whatever its epsilon.
LEAST_NOISE, MOST_NOISE, MOST_STEPS = 0.1, 1e6, 1_000_000
# Noise multiplier, sampling rate and steps of a composition of events.
_Merged = tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Event:
    """``steps`` releases of a Gaussian sum over a Poisson sample of the units.

    ``noise_multiplier`` is the noise's standard deviation over the L2 clip norm; ``sampling_rate``
    the probability that a unit takes part in a step. What cannot be accounted is refused here.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    mechanism: str = MECHANISM

    def __post_init__(self) -> None:
        if self.mechanism != MECHANISM:
            raise UserError(f"mechanism {self.mechanism!r} cannot be accounted. Use {MECHANISM!r}.")
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def statement(epsilon: float, *, unit: str, delta: float, mechanism: str = MECHANISM) -> str:
    """``epsilon``, rounded up to three digits, with everything that must stand beside it."""
    shown = Context(prec=3, rounding=ROUND_CEILING).create_decimal_from_float(epsilon)
    return (
        f"epsilon {float(shown):g} (unit: one {unit}; delta {delta:g}; {mechanism}; adjacency: {ADJACENCY})"
    )


def epsilon_rdp(events: Iterable[Event], delta: float) -> float:
    """Epsilon of ``events`` composed, by the RDP accountant (0 for no events)."""
    return _epsilon(_merge(events), delta, "rdp")


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """Epsilon of ``events`` composed, by the PLD accountant (0 for no events)."""
    return _epsilon(_merge(events), delta, "pld")


def calibrate_noise(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier, from LEAST_NOISE on, whose ``steps`` cost at most ``epsilon`` by RDP.

    Never above ``epsilon``, and within 1 % of it but where even LEAST_NOISE costs less, or where epsilon
    jumps to 0 because delta alone covers the loss. Raises UserError where no noise can do that.
    """
    from dp_accounting import LowerEndpointAndGuess, calibrate_dp_mechanism
    from dp_accounting.rdp import RdpAccountant

    if not epsilon > 0:
        raise UserError(f"epsilon {epsilon} leaves nothing to spend. Give a budget above 0.")
    if not 0 < delta < 1:
        raise UserError(f"delta {delta} is not a probability. Give one in (0, 1), below 1 / units.")

    def event(noise_multiplier: float) -> Any:
        return _to_dp_event(_merge([Event(noise_multiplier, sampling_rate, steps)]))

    if epsilon_rdp([Event(LEAST_NOISE, sampling_rate, steps)], delta) <= epsilon:
        return LEAST_NOISE
    try:
        with _without_order_warnings():
            noise = calibrate_dp_mechanism(
                RdpAccountant, event, epsilon, delta, LowerEndpointAndGuess(LEAST_NOISE, 1.0), tol=1e-5
            )
    except (ValueError, UserError) as error:  # no bracket, or only beyond MOST_NOISE
        raise UserError(
            f"no noise keeps {steps} steps within epsilon {epsilon} at delta {delta}. "
            "Raise epsilon, or lower the number of steps."
        ) from error
    # Brent's method may stop a hair on the wrong side: never above the budget.
    while epsilon_rdp([Event(noise, sampling_rate, steps)], delta) > epsilon:
        noise *= 1.0 + 1e-5
    return float(noise)


def _merge(events: Iterable[Event]) -> _Merged:
    """Sum the steps of equal events: composition is commutative, and the cache then hits.

    A sum may pass MOST_STEPS, which bounds what one event may declare and not what a ledger may hold.
    """
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sampling_rate)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple((noise, rate, steps[noise, rate]) for noise, rate in sorted(steps))


def _to_dp_event(events: _Merged) -> Any:
    from dp_accounting import (
        ComposedDpEvent,
        GaussianDpEvent,
        PoissonSampledDpEvent,
        SelfComposedDpEvent,
    )

    return ComposedDpEvent(
        [
            SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
            for noise, rate, steps in events
        ]
    )


@lru_cache(maxsize=4096)
def _epsilon(events: _Merged, delta: float, accountant: str) -> float:
    if not events:
        return 0.0
    if accountant == "rdp":
        from dp_accounting.rdp import RdpAccountant as Accountant
    else:
        from dp_accounting.pld import PLDAccountant as Accountant
    with _without_order_warnings():
        return float(Accountant().compose(_to_dp_event(events)).get_epsilon(delta))


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
