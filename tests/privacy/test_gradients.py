"""Tests of gradients: every unit's own gradient, by whichever path, against autograd and Opacus."""

import numpy as np
import pytest
import torch
from torch import nn

from cordon.errors import UserError
from cordon.model.architectures import build
from cordon.privacy.clipping import Clip, PrivateMean
from cordon.privacy.events import GAUSSIAN, LAPLACE, NORMS
from cordon.privacy.gradients import Block, DenseGradients, HookedGradients, is_dense, unit_gradients
from cordon.privacy.mechanisms import Randomness

F = 7


class Wide(nn.Module):
    """A model of another kind: a convolution over the features, and a normalisation within the row."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv1d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4 * (F - 2), 1)

    def forward(self, features):
        rows = features.reshape(-1, 1, F)
        scores = self.out(torch.relu(self.norm(self.conv(rows))).flatten(1))
        return scores.reshape(features.shape[:-1])


def module(name, scale=1.0, seed=0):
    torch.manual_seed(seed)
    found = {
        "logistic": lambda: build("logistic", F),
        "mlp": lambda: build("mlp", F),
        "deep": lambda: nn.Sequential(
            nn.ReLU(), nn.Linear(F, 5, bias=False), nn.Sigmoid(), nn.Linear(5, 4), nn.ReLU(),
            nn.Linear(4, 1, bias=False), nn.Flatten(-2),
        ),
        "conv": Wide,
    }[name]()  # fmt: skip
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0, scale)
    return found


def block(units, rows, seed=0, scale=1.0, padding=0):
    source = torch.Generator().manual_seed(seed)
    shape = (units + padding, rows)
    weights = torch.rand(shape, generator=source)
    weights[units:] = 0.0
    return Block(
        scale * torch.randn(*shape, F, generator=source),
        (torch.rand(shape, generator=source) > 0.5).float(),
        weights / rows,
        units,
    )


def by_autograd(model, batch):
    """Every unit's gradient by its own backward pass, float32 [units, parameters]."""
    found = []
    for unit in range(batch.units):
        model.zero_grad()
        scores = model(batch.features[unit])
        losses = nn.functional.binary_cross_entropy_with_logits(scores, batch.labels[unit], reduction="none")
        (losses * batch.weights[unit]).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(found)


def whole_norms(layers, order):
    return torch.stack([layer.norms(order) for layer in layers]).norm(order, dim=0)


ALL = ["logistic", "mlp", "deep", "conv"]


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ALL)
def test_norms_and_weighted_sums_are_those_of_the_units_own_gradients(name, rows):
    model, batch = module(name), block(20, rows)
    expected = by_autograd(model, batch).double()
    layers = unit_gradients(model, F).of(batch)
    for order in (1, 2):
        assert torch.allclose(whole_norms(layers, order), expected.norm(order, dim=1), rtol=1e-5)
    factors = torch.linspace(0, 1, 20, dtype=torch.float64)
    summed = torch.cat([layer.summed(factors) for layer in layers])
    assert torch.allclose(summed, factors @ expected, atol=1e-5)


def opacus_clipped_sum(model, batch, clip):
    """What Opacus' own hooks and optimiser make of the same batch, float32."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    private = GradSampleModule(model, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(private.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=clip,
        expected_batch_size=1, loss_reduction="mean",
    )  # fmt: skip
    scores = private(batch.features.clone().requires_grad_())
    losses = nn.functional.binary_cross_entropy_with_logits(scores, batch.labels, reduction="none")
    (losses * batch.weights).sum().backward()
    optimiser.clip_and_accumulate()
    summed = torch.cat([p.summed_grad.flatten() for p in private.parameters()])
    private.remove_hooks()
    return summed


@pytest.mark.parametrize("clip", [0.01, 0.5, 100.0])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_clipped_sums_are_those_of_opacus_hooks(name, rows, clip):
    batch = block(512, rows)
    expected = opacus_clipped_sum(module(name), batch, clip)
    mean = private_mean(module(name), clip)
    assert (mean.clipped_sum(batch) - expected).norm() <= 1e-5 * clip * 512


def private_mean(model, clip, mechanism=GAUSSIAN, per_layer=False):
    return PrivateMean(
        unit_gradients(model, F), Clip(clip, 1.0), mechanism=mechanism, expected_batch=1.0,
        per_layer=per_layer, random=Randomness(),
    )  # fmt: skip


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ALL)
def test_a_clipped_sum_is_never_longer_than_units_times_clip(name, rows, mechanism, per_layer):
    for seed, scale in enumerate([0.1, 1.0, 30.0]):
        # The same unit again and again: nothing cancels.
        one = block(1, rows, seed, scale)
        parts = (x.repeat(256, *[1] * (x.dim() - 1)) for x in (one.features, one.labels, one.weights))
        same = Block(*parts, 256)
        for batch in (same, block(256, rows, seed, scale)):
            summed = private_mean(module(name, seed=seed), 0.05, mechanism, per_layer).clipped_sum(batch)
            assert float(summed.norm(NORMS[mechanism])) <= 256 * 0.05


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_a_units_gradient_is_the_same_to_the_last_bit_whoever_is_sampled_with_it(name, rows, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, batch, place = unit_gradients(module(name), F), block(304, rows), 17
        first = gradient_of(model, batch, place)
        source = torch.Generator().manual_seed(5)
        for _ in range(6):
            order = torch.randperm(304, generator=source)
            others = block(304, rows, seed=int(order[0]))
            moved = int((order == place).nonzero()[0])
            for field in ("features", "labels", "weights"):
                getattr(others, field)[moved] = getattr(batch, field)[place]
            assert torch.equal(gradient_of(model, others, moved), first)
    finally:
        torch.set_num_threads(before)


def gradient_of(model, batch, place):
    layers = model.of(batch)
    one = torch.zeros(len(batch.features), dtype=torch.float64)
    one[place] = 1.0
    return torch.cat([layer.summed(one) for layer in layers])


def test_dense_stacks_go_the_fast_way_and_everything_else_through_opacus():
    assert isinstance(unit_gradients(build("mlp", F), F), DenseGradients)
    assert isinstance(unit_gradients(Wide(), F), HookedGradients)
    shared = nn.Linear(F, F)
    twice = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(F, 1), nn.Flatten(-2))
    tied = nn.Sequential(nn.Linear(F, F), nn.Tanh(), nn.Linear(F, F), nn.Linear(F, 1), nn.Flatten(-2))
    tied[2].weight = tied[0].weight
    unknown = nn.Sequential(nn.Linear(F, F), nn.Softmax(-1), nn.Linear(F, 1), nn.Flatten(-2))
    for model in (twice, tied, unknown, nn.Sequential(nn.Linear(F, 2), nn.Flatten(-2)), nn.Linear(F, 1)):
        assert not is_dense(model)


def test_a_layer_that_is_used_twice_is_clipped_by_its_whole_gradient():
    torch.manual_seed(0)
    shared = nn.Linear(F, F)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(F, 1), nn.Flatten(-2))
    batch = block(20, 1)
    expected = by_autograd(model, batch).double().norm(dim=1)
    assert torch.allclose(whole_norms(unit_gradients(model, F).of(batch), 2), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm1d(F), r"'0' \(BatchNorm1d\)"),
        (nn.SyncBatchNorm(F), r"'0' \(SyncBatchNorm\)"),
        (nn.InstanceNorm1d(F, track_running_stats=True), r"'0' \(InstanceNorm1d\)"),
    ],
)
def test_layers_with_statistics_over_the_batch_are_refused_by_name(layer, name):
    words = rf"layer {name} computes statistics over the batch.*Use nn\.GroupNorm"
    with pytest.raises(UserError, match=words):
        unit_gradients(nn.Sequential(layer, nn.Linear(F, 1), nn.Flatten(-2)), F)


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(F, 1)

    def forward(self, features):
        return self.linear(features - features.mean(0)).squeeze(-1)


def test_statistics_over_the_batch_that_no_layer_names_are_refused_too():
    with pytest.raises(UserError, match=r"depends on the other rows.*nn\.LayerNorm"):
        unit_gradients(Centred(), F)


def test_scores_that_would_broadcast_against_the_labels_are_refused():
    with pytest.raises(UserError, match=r"scores of shape \(8, 1\) for 8 rows"):
        unit_gradients(nn.Linear(F, 1), F)


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(F))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, features):
        return features @ self.weight


def test_a_layer_that_opacus_cannot_take_apart_is_refused():
    with pytest.raises(UserError, match="without gradients by unit"):
        unit_gradients(Buffered(), F)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [1, 6])
def test_a_unit_that_overflows_adds_nothing_and_changes_nothing_else(name, rows):
    batch = block(16, rows)
    without = torch.where(torch.arange(16)[:, None] == 3, 0.0, batch.weights)
    expected = private_mean(module(name), 0.1).clipped_sum(Block(batch.features, batch.labels, without, 16))
    for value in (np.nan,) if name == "deep" else (np.inf, -np.inf, np.nan):  # ReLU takes -inf for 0
        batch.features[3, 0, 2] = value
        assert torch.allclose(private_mean(module(name), 0.1).clipped_sum(batch), expected, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ALL)
def test_one_block_leaves_nothing_behind_for_the_next(name, rows):
    mean = private_mean(module(name), 0.1)
    first, second = block(16, rows), block(16, rows, seed=1)
    once = mean.clipped_sum(first)
    assert not torch.allclose(mean.clipped_sum(second), once)
    assert torch.equal(mean.clipped_sum(first), once)
