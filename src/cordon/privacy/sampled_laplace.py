"""The Rényi divergence of Laplace noise on a Poisson sample, which dp-accounting has not."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from cordon.arrays import Floats


def renyi_divergence(noise_multiplier: float, sampling_rate: float, order: float) -> float:
    """The Rényi divergence, in nats, of one step that adds or removes a unit, exactly.

    ``noise_multiplier`` is the noise's scale b over the L1 clip norm, ``sampling_rate`` q in (0, 1),
    ``order`` above 1 (below 11 where it is not whole).

    The worst case is one-dimensional: P = Laplace(0, b) against (1 - q) P + q Laplace(1, b). Of all shifts
    within the L1 ball, one coordinate by the whole clip dominates: shifting a product's coordinates one
    after another costs at most what group privacy says, and, as the density is log-concave, that is what
    one shift by their sum costs (Dong, Roth and Su 2022, arXiv:1905.02383). Sampling keeps a dominating
    pair dominating (Zhu, Dong and Wang 2022, arXiv:2106.08567). Removing a unit costs no less than adding
    it, at every order: P and its shift are mirror images (Mironov, Talwar and Zhang 2019,
    arXiv:1908.10530). The tests hold all three against numerical integration.

    What remains is E_P[(1 - q + q r)^order] with r the likelihood ratio: for a whole order, a binomial sum
    over r's moments (Zhu and Wang 2019, "Poisson subsampled Rényi differential privacy", ICML, exact for
    Laplace), which are known (Mironov 2017, arXiv:1702.07476, proposition 6); for another, an integral
    over log r, whose density is smooth between its two atoms. Both take the expectation's 1 off
    analytically, so that small rates lose no digits.
    """
    shift = 1.0 / noise_multiplier
    excess = _sum if order == int(order) else _integral
    return excess(shift, sampling_rate, order) / (order - 1.0)


def _sum(shift: float, rate: float, order: float) -> float:
    """log E_P[(1 - q + q r)^order] for a whole order."""
    power = np.arange(1.0, order + 1.0)
    growth = (power - 1.0) * shift
    exact = power * np.expm1(np.minimum(growth, 50.0)) + (power - 1.0) * np.expm1(-power * shift)
    with np.errstate(divide="ignore"):  # the first moment of r is 1
        above_one = np.where(growth < 50.0, np.log(exact), np.log(power) + growth) - np.log(2 * power - 1)
    choose = np.cumsum(np.log((order + 1.0 - power) / power))
    terms = choose + power * math.log(rate) + (order - power) * math.log1p(-rate) + above_one
    return float(np.logaddexp(0.0, np.logaddexp.reduce(terms)))


def _integral(shift: float, rate: float, order: float) -> float:
    """log E_P[(1 - q + q r)^order] for any order, which must not overflow."""

    def above_one(loss: Floats) -> Floats:
        change = rate * np.expm1(loss)
        return np.asarray(np.expm1(order * np.log1p(change)) - order * change, dtype=np.float64)

    nodes, weights = _quadrature()
    density = np.exp(-shift * (nodes + 1.0) / 2.0) / 4.0
    lowest, highest = above_one(np.array([-shift, shift])).tolist()
    atoms = lowest / 2.0 + math.exp(-shift) * highest / 2.0
    between = shift * float(np.sum(weights * density * above_one(shift * nodes)))
    rounding = 1e-15 * order * rate * math.expm1(shift)
    return math.log1p(atoms + between + rounding)


@lru_cache(maxsize=1)
def _quadrature() -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights on [-1, 1], exact to rounding for losses of up to 10 nats."""
    return np.polynomial.legendre.leggauss(256)
