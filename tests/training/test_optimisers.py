"""Tests of cordon.training.optimisers."""

import pytest
import torch

from cordon.errors import UserError
from cordon.training.optimisers import FLOOR, Adam, optimiser


def run(steps, gradients, variance=0.0):
    return sum(steps.change(gradient, variance) for gradient in gradients)


def torch_run(make, gradients):
    parameter = torch.nn.Parameter(torch.zeros(gradients.shape[1], dtype=torch.float64))
    other = make([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        other.step()
    return parameter.detach()


GRADIENTS = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum):
    ours = run(optimiser("sgd", learning_rate=0.3, momentum=momentum), GRADIENTS)
    expected = torch_run(lambda p: torch.optim.SGD(p, lr=0.3, momentum=momentum), GRADIENTS)
    assert torch.allclose(ours, expected)


def test_without_noise_adam_is_torchs():
    ours = run(optimiser("adam", learning_rate=0.3, momentum=0.0), GRADIENTS)
    expected = torch_run(lambda p: torch.optim.Adam(p, lr=0.3, eps=0.0), GRADIENTS)
    assert torch.allclose(ours, expected)


def test_the_known_noise_is_taken_out_of_adams_second_moment():
    """A steady gradient under noise moves the parameters as it does without: by the learning rate."""
    source = torch.Generator().manual_seed(1)
    steady = torch.full((3000, 100), 1.0, dtype=torch.float64)
    noisy = steady + 2.0 * torch.randn(steady.shape, dtype=torch.float64, generator=source)
    corrected, naive = Adam(0.1), Adam(0.1)
    last = [(corrected.change(g, 4.0), naive.change(g, 0.0)) for g in noisy][-500:]
    right, wrong = (float(torch.stack(changes).mean()) for changes in zip(*last, strict=True))
    assert right == pytest.approx(-0.1, rel=0.1)
    assert wrong == pytest.approx(-0.1 / 5**0.5, rel=0.1)


def test_pure_noise_never_makes_a_long_step_of_adam():
    source = torch.Generator().manual_seed(2)
    steps = Adam(1.0)
    for _ in range(200):
        change = steps.change(torch.randn(500, dtype=torch.float64, generator=source), 1.0)
        assert change.abs().max() <= 5 / FLOOR**0.5


def test_what_is_no_optimiser_and_a_momentum_beside_adam_are_refused():
    with pytest.raises(UserError, match="no optimiser is called 'lion'"):
        optimiser("lion", learning_rate=1.0, momentum=0.0)
    with pytest.raises(UserError, match=r"momentum 0\.9 beside adam"):
        optimiser("adam", learning_rate=1.0, momentum=0.9)
