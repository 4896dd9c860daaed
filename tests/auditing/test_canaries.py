"""Tests of cordon.auditing.canaries and gradient_canaries: what is planted, and what runs then show."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from cordon.auditing import canaries
from cordon.auditing.canaries import (
    AUDITED_SITE,
    RUN_VIEWS,
    Canaries,
    audit_one_run,
    black_box,
    make_canaries,
    updates,
)
from cordon.auditing.gradient_canaries import NO_PLACE, CanaryGradients, SpareInputs, layer_sizes
from cordon.auditing.replay import replay
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import ARCHITECTURES, build, load_parameters, width
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.clipping import NoiseStream, PrivateMean
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.privacy.gradients import Block, unit_gradients
from cordon.privacy.mechanisms import Randomness
from cordon.training.rows import ImageRows
from cordon.training.units import Units
from cordon.variants.features import LIMIT
from cordon.variants.pileup_images import SIZE

pytestmark = pytest.mark.statistical

F, PATIENTS, ROWS = 12, 40, 5


def plan(**changes):
    settings = {
        "model": "mlp", "unit": "patient", "epsilon": 4.0, "delta": 1e-5, "rounds": 3, "local_steps": 5,
        "sampling_rate": 0.5, "clip_norm": 0.05, "learning_rate": 2.0, "max_variants_per_patient": 8,
    }  # fmt: skip
    return Plan.calibrated(**(settings | changes))


def made(unit="patient", images=False):
    source = np.random.default_rng(0)
    features = source.normal(size=(PATIENTS * ROWS, F)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.float32)
    owners = [f"p{row // ROWS:02}" for row in range(len(labels))]
    if images:
        pixels = source.integers(0, 255, (len(labels), SIZE), dtype=np.uint8)
        features = ImageRows(features, pixels, np.arange(len(labels)))
    return Units.group(features, labels, owners, unit=unit)


def audit(audited, *, count=300, view="white-box", seed=0, images=False, **more):
    start = initial_parameters(audited.model, F)
    units = made(audited.unit, images)
    return audit_one_run(audited, units, PATIENTS, start, canaries=count, view=view, seed=seed, **more)


@pytest.fixture(autouse=True)
def from_a_seed(monkeypatch):
    """The same noise and samples in every run of a test."""
    source = np.random.default_rng(7).bytes
    for module in ("cordon.training.dpsgd", "cordon.auditing.replay"):
        monkeypatch.setattr(f"{module}.Randomness", lambda: Randomness(source))


def silent(stream, size):
    return torch.zeros(size, dtype=torch.float64)


def test_canaries_are_whole_units_after_the_real_ones():
    units, included = made(), np.array([True, False, True])
    points, labels = np.arange(3 * F, dtype=np.float32).reshape(3, F), np.array([0, 1, 1], np.float32)
    both = Canaries(points, labels, rows=4).beside(units, included)
    assert len(both) == PATIENTS + 2
    assert np.array_equal(both.features[: PATIENTS * ROWS], units.features)
    for unit, canary in ((PATIENTS, 0), (PATIENTS + 1, 2)):
        own = slice(*both.offsets[unit : unit + 2])
        assert np.array_equal(both.features[own], np.repeat(points[[canary]], 4, axis=0))
        assert (both.labels[own] == labels[canary]).all()


def test_made_canaries_lie_in_the_public_range_with_labels_by_a_coin():
    points = make_canaries(plan(), made(), 500, 4, np.random.default_rng(1))
    assert set(np.unique(points.points)) == {-LIMIT, LIMIT}
    assert points.labels.mean() == pytest.approx(0.5, abs=0.1)
    assert len(np.unique(points.points, axis=0)) > 450


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", ["mlp", "hooked"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_planted_gradient_is_as_if_it_were_the_units_own(kind, rows, order):
    """Norms and sums, by layer, against gradients in full; a unit that is no canary keeps its own."""
    torch.manual_seed(0)
    module = build("mlp", F)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    if kind == "hooked":
        module = torch.nn.Sequential(torch.nn.Identity(), *module)
    sizes = layer_sizes(module)
    # Canary 0 has a part in both layers, canary 1 in the first one alone.
    places = np.array([[5, 17], [3, NO_PLACE]])
    features = torch.randn(4, rows, F)
    features[..., -1] = torch.tensor([0.0, 1.0, 2.0, 0.0])[:, None]
    block = Block(features, torch.ones(4, rows), torch.full((4, rows), 1 / rows), 4)
    real = unit_gradients(module, F)
    planted = CanaryGradients(sizes, places, length=7.0, column=F - 1, real=real)
    factors = torch.tensor([0.5, 2.0, 3.0, 0.25], dtype=torch.float64)
    expected = [layer.summed(factors * torch.tensor([1, 0, 0, 1])) for layer in real.of(block)]
    expected[0][5] += 2.0 * 7
    expected[0][17] += 3.0 * 7
    expected[1][3] += 2.0 * 7
    norms = [layer.norms(order) for layer in real.of(block)]
    for layer, (first, second) in zip(norms, ((7, 7), (7, 0)), strict=True):
        layer[1], layer[2] = first, second
    layers = planted.of(block)
    for layer, norm in zip(layers, norms, strict=True):
        assert torch.allclose(layer.norms(order), norm, rtol=1e-6)
    for layer, total in zip(layers, expected, strict=True):
        assert torch.allclose(layer.summed(factors), total, rtol=1e-5, atol=1e-6)
    layers[0].keep(torch.tensor([True, False, True, True]))
    assert float(layers[0].norms(order)[1]) == 0.0


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_spare_inputs_change_no_score(model):
    """The wider model with zeros in the new inputs is the model; with anything in them it still is."""
    spare, source = SpareInputs.of(model, F, 40), np.random.default_rng(2)
    narrow, wide = build(model, F), build(model, F + spare.count)
    start = {
        name: source.normal(size=value.shape).astype(np.float32)
        for name, value in initial_parameters(model, F).items()
    }
    load_parameters(narrow, start)
    load_parameters(wide, spare.start(start))
    rows = source.normal(size=(6, width(model, F))).astype(np.float32)
    wider = np.concatenate([spare.rows(rows[:, :F], np.arange(6)), rows[:, F:]], axis=1)
    with torch.no_grad():
        assert torch.allclose(narrow(torch.from_numpy(rows)), wide(torch.from_numpy(wider)), rtol=1e-4)
    output, column = spare.place(np.arange(40))
    assert len({*zip(output, column, strict=True)}) == 40
    assert column.min() == F
    assert column.max() < F + spare.count - 1  # the last input is the mark


@pytest.mark.parametrize("model", ["logistic", "mlp"])
@pytest.mark.parametrize("unit", ["patient", "variant"])
def test_a_canary_that_is_in_moves_its_weight_by_the_clip_and_no_other(monkeypatch, model, unit):
    """Without noise and with every unit in every step; real units train as they do without canaries."""
    monkeypatch.setattr(NoiseStream, "take", silent)
    audited = plan(model=model, unit=unit, sampling_rate=1.0)
    units, start, seen = made(unit), initial_parameters(model, F), []

    def watched(*arguments, **named):
        seen.append(replay(*arguments, **named))
        return seen[-1]

    monkeypatch.setattr(canaries, "replay", watched)
    included = np.random.default_rng(3).random(50) < 0.5
    rows = 4 if unit == "patient" else 1
    scores = canaries._white_box(audited, units, PATIENTS, start, included, rows, None)
    settings = audited.settings_for(PATIENTS)
    step = audited.learning_rate * audited.clip_norm / settings.expected_batch
    assert scores[included] == pytest.approx(15 * step, rel=1e-3)
    assert scores[~included] == pytest.approx(0.0, abs=1e-3 * step)
    alone = replay(audited, {AUDITED_SITE: units}, {AUDITED_SITE: PATIENTS}, start)
    name = SpareInputs.of(model, F, 50).name
    for key, value in alone.model.items():
        wide = seen[0].model[key]
        assert np.allclose(wide[:, :F] if key == name else wide, value, atol=1e-5)


def test_black_box_scores_are_the_fall_of_the_loss():
    audited, start = plan(), initial_parameters("mlp", F)
    units = made()
    points = make_canaries(audited, units, 20, 2, np.random.default_rng(4))
    run = replay(audited, {AUDITED_SITE: units}, {AUDITED_SITE: PATIENTS}, start)
    losses = []
    for parameters in (start, run.model):
        module = build("mlp", F)
        load_parameters(module, parameters)
        scores = module(torch.from_numpy(points.points))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, torch.from_numpy(points.labels), reduction="none"
        )
        losses.append(loss.detach().numpy())
    assert np.allclose(black_box(audited, points, run), losses[0] - losses[1], atol=1e-5)


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_update_scores_are_inner_products_with_unit_gradients(model):
    images = model == "pileup_cnn"
    audited, start = plan(model=model, rounds=2, local_steps=1), initial_parameters(model, F)
    units = made(images=images)
    points = make_canaries(audited, units, 4, 2, np.random.default_rng(5))
    run = replay(audited, {AUDITED_SITE: units}, {AUDITED_SITE: PATIENTS}, start)
    expected = np.zeros(4)
    inputs, labels = torch.from_numpy(points.points[np.arange(4)]), torch.from_numpy(points.labels)
    for begun, sent in zip(run.models, run.updates, strict=False):
        for canary in range(4):
            module = build(model, F)
            load_parameters(module, begun)
            score = module(inputs[canary, None])
            torch.nn.functional.binary_cross_entropy_with_logits(score, labels[canary, None]).backward()
            own = torch.cat([parameter.grad.flatten() for parameter in module.parameters()]).numpy()
            moved = np.concatenate(
                [sent[AUDITED_SITE][name].ravel() for name, _ in module.named_parameters()]
            )
            expected[canary] -= own @ moved / np.linalg.norm(own)
    assert np.allclose(updates(audited, points, run), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scored", [black_box, updates])
def test_with_little_noise_canaries_that_are_in_score_higher(scored):
    """The sign of the score, where a model learns what it is told: AUROC near 0.7, or 0.3 the other way."""
    audited = plan(epsilon=1000.0, rounds=30, clip_norm=0.5)
    units, start = made(), initial_parameters("mlp", F)
    source = np.random.default_rng(6)
    included = source.random(300) < 0.5
    points = make_canaries(audited, units, 300, 8, source)
    run = replay(audited, {AUDITED_SITE: points.beside(units, included)}, {AUDITED_SITE: PATIENTS}, start)
    assert roc_auc_score(included, scored(audited, points, run)) > 0.6


CHANGES = [
    {}, {"unit": "variant"}, {"clipping": "adaptive"}, {"per_layer": True}, {"model": "logistic"},
    {"optimiser": "adam", "learning_rate": 0.02}, {"mechanism": LAPLACE}, {"momentum": 0.9},
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(map(str, changes.values())))
@pytest.mark.parametrize("view", RUN_VIEWS)
def test_right_code_keeps_to_its_claim(view, changes):
    audited = plan(epsilon=1.0, **changes)
    bounds = [audit(audited, view=view, seed=seed, confidence=0.99) for seed in range(3)]
    # The probability of three wrong ones is 1e-6.
    assert not all(bound.exceeds for bound in bounds)
    assert {bound.unit for bound in bounds} == {audited.unit}


def test_chosen_gradients_show_a_good_part_of_epsilon():
    assert audit(plan(), count=1000).epsilon_lower > 0.7
    assert audit(plan(), count=1000, estimator="gaussian").epsilon_lower > 1.0


@pytest.mark.parametrize("view", RUN_VIEWS)
def test_only_the_run_tells_who_was_in(monkeypatch, view):
    """Runs without their canaries: a score that saw the coins by another way would show something."""

    def without(audited, sites, declared, start, **more):
        kept = len(made())
        units = sites[AUDITED_SITE]
        rows = int(units.offsets[kept])
        units = Units(units.features[:rows], units.labels[:rows], units.offsets[: kept + 1], units.unit)
        return replay(audited, {AUDITED_SITE: units}, declared, start, **more)

    monkeypatch.setattr(canaries, "replay", without)
    audited = plan(rounds=1, local_steps=2, epsilon=100.0)
    shown = sum(audit(audited, view=view, seed=seed, count=200).epsilon_lower > 0 for seed in range(40))
    assert shown <= stats.binom.isf(1e-4, 40, 0.05)


def by_row(mean, block):
    """Each row of a unit to the clip, as if it were a unit; padding is none."""
    real = block.weights[: block.units] > 0
    parts = [x[: block.units][real][:, None] for x in (block.features, block.labels)]
    return CLIPPED_SUM(mean, Block(*parts, torch.ones(len(parts[0]), 1), len(parts[0])))


CLIPPED_SUM = PrivateMean.clipped_sum
BUGS = {
    "no noise": (NoiseStream, "take", silent),
    "no clip": ("cordon.privacy.clipping.clip_factors", lambda norms, clip: torch.ones_like(norms)),
    "rows clipped, not patients": (PrivateMean, "clipped_sum", by_row),
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
def test_planted_bugs_are_found_in_one_run(monkeypatch, bug, mechanism):
    """Of an epsilon that so many canaries can refute: 300 show at most 4."""
    audited = plan(epsilon=1.0, mechanism=mechanism, max_variants_per_patient=16)
    monkeypatch.setattr(*BUGS[bug])
    bound = audit(audited, confidence=0.99)
    assert bound.exceeds
    assert bound.epsilon_lower > 2.0


@pytest.mark.parametrize("view", RUN_VIEWS)
def test_models_of_images_are_audited_too(view):
    audited = plan(model="pileup_cnn", rounds=1, local_steps=2, max_variants_per_patient=2)
    bound = audit(audited, view=view, count=20, images=True)
    assert bound.canaries == 20
    assert 0 <= bound.epsilon_lower < 4.0


def test_a_seed_fixes_coins_and_canaries_but_not_the_noise(monkeypatch):
    seen, runs = [], []

    def watched(audited, sites, declared, start, **more):
        seen.append(sites[AUDITED_SITE])
        runs.append(replay(audited, sites, declared, start, **more))
        return runs[-1]

    monkeypatch.setattr(canaries, "replay", watched)
    for seed in (1, 1, 2):
        audit(plan(), view="black-box", seed=seed, count=50)
    assert np.array_equal(seen[0].features, seen[1].features)
    assert not np.array_equal(runs[0].model["0.weight"], runs[1].model["0.weight"])
    assert len(seen[0]) != len(seen[2]) or not np.array_equal(seen[0].features, seen[2].features)
    assert abs(len(seen[0]) - PATIENTS - 25) < 18


def test_a_result_says_what_was_seen_and_what_was_claimed():
    bound = audit(plan(), view="updates", count=50, confidence=0.9)
    assert (bound.view, bound.unit, bound.mechanism) == ("updates", "patient", GAUSSIAN)
    assert (bound.claimed, bound.delta, bound.confidence) == (4.0, 1e-5, 0.9)
    assert replace(bound, epsilon_lower=4.1).exceeds
    assert "unit: one patient" in bound.statement()


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(UserError, match="no view"):
        audit(plan(), view="grey-box")
    with pytest.raises(UserError, match="canaries"):
        audit(plan(), count=0)
