"""Composition of events by dp_accounting used directly, for tests."""

from __future__ import annotations

from functools import cache

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

DELTA = 1e-5


def composed(events, accountant=RdpAccountant):
    """Epsilon of ``events`` by dp-accounting alone."""
    return _composed(
        tuple(sorted((e.noise_multiplier, e.sampling_rate, e.steps) for e in events)), accountant
    )


@cache
def _composed(events, accountant):
    account = accountant()
    for noise, rate, steps in events:
        account.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return account.get_epsilon(DELTA) if events else 0.0
