"""Events: what noisy releases did, as plans, ledgers and certificates tell it and accountants compose it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from cordon.errors import UserError

GAUSSIAN = "Poisson-sampled Gaussian"
LAPLACE = "Poisson-sampled Laplace"
MECHANISMS = (GAUSSIAN, LAPLACE)
MECHANISM = GAUSSIAN
# The norm p that a unit's contribution is clipped in, so that the mechanism's noise hides it.
NORMS = {GAUSSIAN: 2, LAPLACE: 1}
# The standard deviation of the mechanism's noise of scale 1.
DEVIATIONS = {GAUSSIAN: 1.0, LAPLACE: math.sqrt(2.0)}
# Beyond these no epsilon is of use: a step of the least noise costs 10 (Laplace) or 90 (Gaussian).
LEAST_NOISE, MOST_NOISE, MOST_STEPS = 0.1, 1e6, 1_000_000
# The most sites that one person's data may be counted at.
MOST_SITES = 100
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


def _check_mechanism(mechanism: str) -> None:
    if mechanism not in MECHANISMS:
        raise UserError(
            f"mechanism {mechanism!r} cannot be accounted. Use {' or '.join(map(repr, MECHANISMS))}."
        )


def mechanism_of(events: Iterable[Event]) -> str:
    """What stands beside an epsilon that composes ``events``: all of their mechanisms."""
    return all_mechanisms(event.mechanism for event in events)


def all_mechanisms(named: Iterable[str]) -> str:
    """The mechanisms that are ``named`` (one, or several as `mechanism_of` writes them), each once."""
    return " and ".join(sorted({one for name in named for one in name.split(" and ")})) or "no mechanism"


def at_sites(events: Iterable[Event], sites: int) -> list[Event]:
    """``events`` as they count for a person at so many sites, each of which released what this one did."""
    return [replace(event, sites=sites) for event in events]


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
