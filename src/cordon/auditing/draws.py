"""What tells numbers from independent draws of the noise that a plan declares, and coins from fair ones.

Every limit holds for any number of draws, not only for many: tails of the very distribution where it is
known, and else inequalities (Dvoretzky, Kiefer and Wolfowitz with Massart's constant 1990; Hoeffding 1963).
Right code passes each test but with the probability ERROR.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import betaincinv
from scipy.stats import binom, chi2, gamma, laplace, norm

from cordon.arrays import Bools, Floats
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.privacy.mechanisms import GRID_BITS

# The power of a number of noise whose sum over draws is chi-square's or gamma's.
POWERS = {GAUSSIAN: 2, LAPLACE: 1}
# How often right code fails one test.
ERROR = 1e-6
# Noise is looked at as finely as so many binary digits of its scale: a little coarser than its grid.
FINE_BITS = GRID_BITS - 2


def farthest(expected: Floats) -> tuple[float, float]:
    """Kolmogorov's distance of values from a distribution, and the most of as many draws from it.

    ``expected`` is its distribution function at the sorted values.
    """
    size = len(expected)
    steps = np.arange(size + 1) / size
    seen = max(float((steps[1:] - expected).max()), float((expected - steps[:-1]).max()))
    return seen, math.sqrt(math.log(2.0 / ERROR) / (2.0 * size))


def not_uniform(values: Floats, slack: float) -> bool:
    """Whether ``values`` in [0, 1) are no draws of the uniform distribution, known but for ``slack``."""
    if not len(values):
        return False
    seen, most = farthest(np.sort(values))
    return seen > most + slack


def scale_faults(
    sums: Floats, numbers: int | npt.NDArray[np.int64], mechanism: str, where: str
) -> Iterator[str]:
    """What tells ``sums`` over so many ``numbers`` each, to their power, from those of noise of scale 1.

    The worst of them is named, which lies ``where``.
    """
    draws = np.broadcast_to(numbers, sums.shape)
    known = _of_sums(draws, mechanism)
    tails = np.minimum(known.cdf(sums), known.sf(sums))
    worst = int(np.argmin(np.where(np.isfinite(sums), tails, -1.0)))
    if not 2.0 * len(sums) * tails[worst] >= ERROR:
        ratio = (sums[worst] / draws[worst]) ** (1.0 / POWERS[mechanism])
        yield f"the noise {where} is {ratio:.3g} of the declared one"


def least_scale(numbers: int, mechanism: str) -> float:
    """Noise of a scale below that would be found by so many numbers of it."""
    least = float(_of_sums(numbers, mechanism).ppf(ERROR / 2.0)) / numbers
    return math.sqrt(least) if POWERS[mechanism] == 2 else least


def _of_sums(numbers: int | npt.NDArray[np.int64], mechanism: str) -> Any:
    """The distribution of a sum over draws of scale 1, to their power: of squares, or of Laplace's sizes."""
    return chi2(numbers) if mechanism == GAUSSIAN else gamma(numbers)


def shape_faults(noise: Floats, mechanism: str) -> Iterator[str]:
    """What tells numbers of scale 1 from the mechanism's distribution: its shape, its ends, its digits."""
    family = norm if mechanism == GAUSSIAN else laplace
    numbers = np.sort(noise, axis=None)
    seen, most = farthest(family.cdf(numbers))
    if not seen <= most + 2.0**-GRID_BITS:
        yield f"the noise has another distribution than declared (a Kolmogorov distance of {seen:.3g})"
    largest = float(np.abs(numbers[[0, -1]]).max())
    beyond = 2.0 * family.sf(largest)
    if len(numbers) * math.log1p(-min(beyond, 1.0 - 1e-16)) < math.log(ERROR / 2.0):
        yield f"of {len(numbers)} numbers of noise none is beyond {largest:.3g} of its scale"
    if len(numbers) * beyond < ERROR / 2.0:
        yield f"a number is {largest:.3g} of the noise's scale away from what units add"
    # A number is known within one step of the grid, which is taken up by chance.
    wide = numbers[np.abs(numbers) >= 1.0]
    within = np.random.default_rng().uniform(-0.5, 0.5, len(wide)) * 2.0**-GRID_BITS
    if not_uniform(((wide + within) * 2.0**FINE_BITS) % 1.0, 2.0**-5):
        yield f"the noise takes fewer values than its {GRID_BITS} binary digits have"


def shared_faults(noise: Floats) -> Iterator[str]:
    """What tells numbers [releases, numbers], of which the sign is looked at, from ones drawn apart.

    A product of two fair signs that were drawn apart is a fair sign, and so is each of a row of them.
    """
    signs = np.where(noise >= 0.0, 1.0, -1.0).astype(np.float32)
    for name, rows in (("releases", signs), ("numbers of a release", signs.T)):
        count, terms = rows.shape
        pairs = count * (count - 1) // 2
        alike = np.abs(rows @ rows.T)
        np.fill_diagonal(alike, 0.0)
        if pairs and alike.max() > _most(np.array(terms), pairs):
            yield f"two {name} share their noise (in {(alike.max() / terms + 1) / 2:.3g} of their signs)"
    row = signs.ravel()
    size = next_fast_len(2 * len(row), real=True)
    with_itself = irfft(np.abs(rfft(row, size)) ** 2, size)[1 : len(row)]
    terms = len(row) - np.arange(1, len(row))
    beyond = np.abs(with_itself) > _most(terms, len(terms)) + 0.5
    if beyond.any():
        lag = 1 + int(np.argmax(beyond))
        yield f"numbers of noise come again {lag} numbers later"


def _most(terms: npt.NDArray[np.int64], tests: int) -> Floats:
    """What the size of none of so many sums of as many fair signs exceeds."""
    limits: Floats = np.sqrt(2.0 * terms * math.log(2.0 * tests / ERROR))
    return limits


def coin_faults(taken: Bools, rate: float, names: Sequence[str]) -> Iterator[str]:
    """What tells coins [rounds, steps, units] from independent ones that fall with the probability ``rate``.

    ``names`` are those of the three.
    """
    for axis, name in enumerate(names):
        # Each thing's coins in a column.
        columns = np.moveaxis(taken, axis, -1).reshape(-1, taken.shape[axis])
        yield from _rate_faults(columns, rate, f"of one of the {name}")
        yield from _pair_faults(columns[:, :MOST_COLUMNS], rate, name)
        yield from _spread_faults(taken.sum(axis=axis).ravel(), taken.shape[axis], rate, name)
    yield from _rate_faults(taken.reshape(-1, 1), rate, "in all")


# So many rounds, steps or units are compared in pairs at most.
MOST_COLUMNS = 256


def _rate_faults(columns: Bools, rate: float, where: str) -> Iterator[str]:
    sums, coins = columns.sum(0), len(columns)
    tails = np.minimum(binom.cdf(sums, coins, rate), binom.sf(sums - 1, coins, rate))
    worst = int(np.argmin(tails))
    if 2.0 * len(sums) * tails[worst] < ERROR:
        yield f"{sums[worst] / coins:.4g} of the coins {where} fall, and the plan declares {rate:g}"


def _pair_faults(columns: Bools, rate: float, name: str) -> Iterator[str]:
    """Two things whose coins fall together, or never do, share a coin."""
    things = columns.shape[1]
    if things < 2 or rate == 1.0:
        return
    numbers = columns.astype(np.float32)
    both = (numbers.T @ numbers)[np.triu_indices(things, 1)]
    for extreme, tail in (
        (both.max(), binom.sf(both.max() - 1, len(columns), rate**2)),
        (both.min(), binom.cdf(both.min(), len(columns), rate**2)),
    ):
        if 2.0 * len(both) * tail < ERROR:
            yield (
                f"two {name} are not sampled apart: together in {extreme / len(columns):.4g} of their coins, "
                f"where {rate**2:.4g} are expected"
            )


def _spread_faults(sums: npt.NDArray[np.int64], coins: int, rate: float, name: str) -> Iterator[str]:
    """Sums over ``coins`` of them are draws of a binomial."""
    values = np.arange(coins + 1)
    seen = np.cumsum(np.bincount(sums, minlength=coins + 1)) / len(sums)
    distance = float(np.abs(seen - binom.cdf(values, coins, rate)).max())
    most = math.sqrt(math.log(2.0 / ERROR) / (2.0 * len(sums)))
    if distance > most:
        yield (
            f"the sums over the {name} are not a binomial's (a Kolmogorov distance of {distance:.3g}, and "
            f"{most:.3g} at most)"
        )


def noise_at_most(found: Sequence[Floats], mechanism: str, error: float) -> float:
    """The upper bound of the noise's scale from draws [steps, coordinates], wrong with probability ``error``.

    It is the least of what all numbers show together, and what those of each coordinate show: a unit may lie
    along the one that has the least noise.
    """
    power = POWERS[mechanism]
    sums = np.concatenate([(np.abs(numbers) ** power).sum(axis=0) for numbers in found])
    draws = np.concatenate([np.full(numbers.shape[1], len(numbers)) for numbers in found])
    totals = np.append(sums, sums.sum()), np.append(draws, draws.sum())
    wrong = np.append(np.full(len(sums), error / 2 / len(sums)), error / 2)
    least = _of_sums(totals[1], mechanism).ppf(wrong)
    return float(np.min((totals[0] / least) ** (1 / power)))


def rate_at_least(count: int, size: int, error: float) -> float:
    """The lower bound of a rate by which ``count`` of ``size`` coins fell (Clopper and Pearson 1934)."""
    return float(betaincinv(count, size - count + 1, error)) if count else 0.0


def shift_at_least(seen: Floats, quiet: float, error: float) -> float:
    """The lower bound of how far the unit that moves a step farthest moves those that it is in, on average.

    ``seen`` [steps, units] beside noise of scale ``quiet``; what moves a step by less than 1/2 is not in it.
    """
    moved = np.where(seen > 0.5, seen, np.nan)[:, (seen > 0.5).sum(0) > 1]
    if not moved.size:
        return 0.0
    counts, deviations = (~np.isnan(moved)).sum(0), np.maximum(np.nanstd(moved, axis=0), quiet)
    least = np.nanmean(moved, axis=0) - norm.isf(error / seen.shape[1]) * deviations / np.sqrt(counts)
    return float(least.max())
