"""Gradient inversion: exact where nothing protects one row, no better than a guess where DP does."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, vmap

from cordon.auditing.inversion import (
    CLOSED_FORM,
    MATCHING,
    METHODS,
    Marginals,
    _errors,
    closed_form,
    dense_gradients,
    invert,
    match_gradients,
)
from cordon.auditing.shadows import unit_gradients_of
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters, build
from cordon.model.initial_weights import initial_parameters
from cordon.training.pretrain import fit
from cordon.training.units import Units

pytestmark = pytest.mark.statistical

FEATURES = 10
SURE = 0.999


def units(number: int, *, seed: int) -> Units:
    """Rows whose features differ in scale and centre, one of them constant; the first ones tell the label."""
    rng = np.random.default_rng(seed)
    scale = np.array([1.0, 1.0, 0.5, 0.5, 0.2, 0.2, 1.0, 1.0, 0.5, 0.0])
    features = np.clip(rng.normal(size=(number, FEATURES)) * scale + 0.3, -3, 3).astype(np.float32)
    labels = (features[:, 0] + features[:, 2] + 0.5 * rng.normal(size=number) > 0.3).astype(np.float32)
    return Units.group(features, labels, [""] * number, unit="variant")


PUBLIC, PRIVATE = units(400, seed=1), units(400, seed=2)


@cache
def warm() -> Parameters:
    """A start that is fitted to public rows, not so well that they leave no gradient."""
    return fit("mlp", PUBLIC.features, PUBLIC.labels, length=120)


def plan(unit: str = "variant", *, epsilon: float = 3.0, model: str = "mlp") -> Plan:
    return Plan.calibrated(
        model=model, unit=unit, epsilon=epsilon, delta=1e-5, rounds=5, local_steps=10, sampling_rate=0.5,
        clip_norm=1.0, learning_rate=0.05, max_variants_per_patient=16 if unit == "patient" else 1,
    )  # fmt: skip


def update_of(rows: Units, start: Parameters, model: str = "mlp") -> Parameters:
    """One plain step with all rows: minus the mean gradient."""
    gradient = -unit_gradients_of(model, start, rows).mean(0)
    update, first = {}, 0
    for name, value in start.items():
        update[name] = gradient[first : first + value.size].reshape(value.shape).astype(np.float32)
        first += value.size
    return update


@pytest.mark.parametrize("unit", ["variant", "patient"])
def test_without_dp_the_closed_form_gives_a_single_row_away(unit):
    result = invert(plan(unit), PRIVATE, PUBLIC, warm(), protected=False, confidence=SURE)
    assert result.error < 0.01
    assert result.baseline > 0.7
    assert result.ratio.high < 0.05
    assert result.privacy == {}


def test_a_logistic_model_gives_a_single_row_away_at_its_own_start():
    start = initial_parameters("logistic", FEATURES)
    result = invert(plan(model="logistic"), PRIVATE, PUBLIC, start, protected=False)
    assert result.error < 0.01


def test_at_an_mlps_own_start_the_first_layer_says_nothing():
    start = initial_parameters("mlp", FEATURES)
    result = invert(plan(), PRIVATE, PUBLIC, start, protected=False, confidence=SURE)
    # What comes of rounding errors is a guess, and as good as a guess or worse: 1 is nothing learnt.
    assert result.ratio.high >= 1.0 - 1e-9
    assert result.error > 0.9 * result.baseline


def test_the_closed_form_of_several_rows_is_a_mixture_of_them():
    start = initial_parameters("logistic", FEATURES)
    rows = Units.group(PRIVATE.features[:2], np.zeros(2, np.float32), ["", ""], unit="variant")
    found = closed_form(update_of(rows, start, "logistic"), Marginals.of(PUBLIC), 2)
    # All scores are the same at the start, so are the weights of both rows.
    np.testing.assert_allclose(found, np.tile(rows.features.mean(0), (2, 1)), atol=1e-5)


def test_gradient_matching_finds_one_row_and_comes_near_to_four():
    one = invert(plan(), PRIVATE, PUBLIC, warm(), protected=False, method=MATCHING, repeats=6)
    assert one.ratio.value < 0.1
    four = invert(plan(), PRIVATE, PUBLIC, warm(), rows=4, protected=False, method=MATCHING, repeats=10)
    mixture = invert(plan(), PRIVATE, PUBLIC, warm(), rows=4, protected=False, repeats=10)
    assert four.ratio.high < 0.95
    assert four.error < mixture.error


@pytest.mark.parametrize("architecture", ["logistic", "mlp"])
def test_gradients_that_are_written_out_are_those_of_torch(architecture):
    torch.manual_seed(0)
    module = build(architecture, FEATURES).double()
    values = {name: torch.randn_like(value) for name, value in module.named_parameters()}
    inputs, residuals = torch.randn(3, 5, FEATURES).double(), torch.randn(3, 5).double()

    def weighted(at, rows, weights):
        return functional_call(module, at, (rows,)) @ weights

    expected = vmap(grad(weighted), in_dims=(None, 0, 0))(values, inputs, residuals)
    for name, found in zip(values, dense_gradients(values, inputs, residuals), strict=True):
        torch.testing.assert_close(found.reshape(expected[name].shape), expected[name])


def test_constant_public_features_are_known_to_gradient_matching():
    marginals = Marginals.of(PUBLIC)
    rows = Units.group(PRIVATE.features[:1], PRIVATE.labels[:1], [""], unit="variant")
    found = match_gradients("mlp", warm(), [update_of(rows, warm())], marginals, 1, np.random.default_rng(0))
    assert found.shape == (1, 1, FEATURES)
    assert found[0, 0, -1] == marginals.mean[-1]


@pytest.mark.parametrize("unit", ["variant", "patient"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("epsilon", [8.0, 3.0])
def test_under_dp_nothing_is_reconstructed_that_a_guess_does_not_give(unit, method, epsilon):
    private = plan(unit, epsilon=epsilon)
    for rows in (1,) if method == MATCHING else (1, 4, 16):
        result = invert(
            private, PRIVATE, PUBLIC, warm(), rows=rows, method=method, repeats=12, confidence=SURE
        )
        assert result.ratio.high >= 1.0, rows
        assert result.privacy["epsilon"] == epsilon
        assert result.to_dict()["ratio"]["high"] == result.ratio.high


def test_matched_noise_is_no_success():
    """Many rows of noise come near to some true ones by matching alone; the baseline is as lucky."""
    result = invert(
        plan(epsilon=0.5), PRIVATE, PUBLIC, warm(), rows=4, method=MATCHING, repeats=12, confidence=SURE
    )
    assert result.ratio.high >= 1.0


def test_errors_do_not_depend_on_the_order_of_the_rows():
    known = np.random.default_rng(0).normal(size=(3, 5, 4))
    assert _errors(known[:, ::-1], known) == pytest.approx(np.zeros(3))
    assert _errors(known[:, :1] + 0.5, known[:, :1]) == pytest.approx(np.full(3, 0.5))


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(UserError, match="first layer is dense"):
        invert(plan(model="pileup_cnn"), PRIVATE, PUBLIC, warm())
    with pytest.raises(UserError, match="no site of 401"):
        invert(plan(), PRIVATE, PUBLIC, warm(), rows=401)
    with pytest.raises(UserError, match=CLOSED_FORM):
        invert(plan(), PRIVATE, PUBLIC, warm(), method="guess")
