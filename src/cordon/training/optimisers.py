"""Steps from private gradients: what is done with a release costs no privacy (post-processing).

Gradients are torch's tensors at a site, and numpy's arrays at the aggregator, which has no torch.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from cordon.errors import UserError
from cordon.training.settings import OPTIMISERS

# Adam's decay rates (Kingma and Ba 2015, arXiv:1412.6980).
BETA_1, BETA_2 = 0.9, 0.999
# The least that Adam takes for a squared gradient, in noise variances: a corrected second moment below that
# is itself noise, and dividing by it would turn noise into the longest steps.
FLOOR = 0.1
# Adam's own guard against a division by nothing, where there is no noise.
TINY = 1e-16
# Float64 numbers [parameters], torch's or numpy's: both have the few operations that a step takes.
Numbers = TypeVar("Numbers", bound=Any)


class Optimiser(Protocol):
    """Turns private mean gradients into changes of the parameters."""

    def change(self, gradient: Numbers, noise_variance: float) -> Numbers:
        """The change for ``gradient`` (float64 [parameters]), whose noise has ``noise_variance``."""


class SGD:
    """Stochastic gradient descent with momentum, as torch.optim.SGD has it."""

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate, self._momentum = learning_rate, momentum
        self._velocity: Any = None

    def change(self, gradient: Numbers, noise_variance: float) -> Numbers:
        moving = self._momentum and self._velocity is not None
        self._velocity = self._momentum * self._velocity + gradient if moving else gradient
        return -self._learning_rate * self._velocity  # type: ignore[no-any-return]


class Adam:
    """Adam whose second moment is rid of the noise's known part.

    That is DP-AdamBC (Tang et al. 2024, arXiv:2312.14334). Without it the denominator is the noise's
    deviation in every coordinate, and Adam is SGD with a smaller step. The noise's variance is averaged
    as the squares are, so it may change with the clip.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._first: Any = 0.0
        self._second: Any = 0.0
        self._noise = 0.0
        self._steps = 0

    def change(self, gradient: Numbers, noise_variance: float) -> Numbers:
        self._steps += 1
        self._first = BETA_1 * self._first + (1 - BETA_1) * gradient
        self._second = BETA_2 * self._second + (1 - BETA_2) * gradient * gradient
        self._noise = BETA_2 * self._noise + (1 - BETA_2) * noise_variance
        first = self._first / (1 - BETA_1**self._steps)
        second = self._second / (1 - BETA_2**self._steps)
        noise = self._noise / (1 - BETA_2**self._steps)
        square = (second - noise).clip(FLOOR * noise + TINY)
        return -self._learning_rate * first / square**0.5  # type: ignore[no-any-return]


def optimiser(name: str, *, learning_rate: float, momentum: float) -> Optimiser:
    """A fresh optimiser. Raises UserError for another name, or a momentum beside Adam's own."""
    if name == "sgd":
        return SGD(learning_rate, momentum)
    if name != "adam":
        raise UserError(f"no optimiser is called {name!r}. Choose one of: {', '.join(OPTIMISERS)}.")
    if momentum:
        raise UserError(f"momentum {momentum:g} beside adam, which has its own. Leave it at 0, or use sgd.")
    return Adam(learning_rate)
