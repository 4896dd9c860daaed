"""Tests of the model pileup_cnn: what it looks at, that rows do not mix, and that it learns privately."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from conftest import table_row
from cordon.errors import UserError
from cordon.model.architectures import build, load_parameters, width
from cordon.model.initial_weights import initial_parameters
from cordon.model.pileup_cnn import PileupCNN
from cordon.model.released import Model
from cordon.privacy.clipping import Clip, PrivateMean
from cordon.privacy.events import GAUSSIAN, LAPLACE, NORMS
from cordon.privacy.gradients import Block, HookedGradients, refuse_mixing_layers, unit_gradients
from cordon.privacy.mechanisms import Randomness
from cordon.scoring.calibrate import Alleles, calibrate
from cordon.scoring.calibration import uncalibrated
from cordon.scoring.score import Scoring
from cordon.training.dpsgd import train
from cordon.training.pretrain import fit, pretrain
from cordon.training.settings import DPSGD
from cordon.training.units import Units
from cordon.variants.features import FEATURES
from cordon.variants.pileup_images import CHANNELS, SHAPE, SIZE
from cordon.variants.table import LABELLED, PILEUP, VARIANTS, for_model, inputs, read_table, write_table

CNN = "pileup_cnn"
F = 3
WIDTH = width(CNN, F)


def module(scale=0.3, seed=0):
    torch.manual_seed(seed)
    found = build(CNN, F)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0, scale)
    return found


def block(units, rows, seed=0, scale=1.0):
    source = torch.Generator().manual_seed(seed)
    features = scale * torch.rand(units, rows, WIDTH, generator=source)
    labels = (torch.rand(units, rows, generator=source) > 0.5).float()
    return Block(features, labels, torch.full((units, rows), 1 / rows), units)


def by_autograd(model, batch):
    found = []
    for unit in range(batch.units):
        model.zero_grad()
        losses = nn.functional.binary_cross_entropy_with_logits(
            model(batch.features[unit]), batch.labels[unit], reduction="none"
        )
        (losses * batch.weights[unit]).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    return torch.stack(found)


@pytest.mark.parametrize("most_rows", [4096, 6])
@pytest.mark.parametrize("rows", [1, 5])
def test_norms_and_sums_are_those_of_the_units_own_gradients(rows, most_rows, monkeypatch):
    model, batch = module(), block(4, rows)
    expected = by_autograd(model, batch).double()
    gradients = unit_gradients(model, WIDTH)
    assert isinstance(gradients, HookedGradients)
    monkeypatch.setattr(gradients, "most_rows", most_rows)  # 6: a row of every unit at a time
    layers = gradients.of(batch)
    norms = torch.stack([layer.norms(2) for layer in layers]).norm(dim=0)
    assert torch.allclose(norms, expected.norm(dim=1), rtol=1e-5)
    factors = torch.linspace(0, 1, 4, dtype=torch.float64)
    summed = torch.cat([layer.summed(factors) for layer in layers])
    assert torch.allclose(summed, factors @ expected, atol=1e-5)


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("mechanism", [GAUSSIAN, LAPLACE])
def test_a_clipped_sum_is_never_longer_than_units_times_clip(mechanism, per_layer):
    for seed, scale in enumerate([0.1, 1.0, 30.0]):
        one = block(1, 2, seed, scale)
        same = Block(
            *(x.repeat(64, *[1] * (x.dim() - 1)) for x in (one.features, one.labels, one.weights)), 64
        )
        mean = PrivateMean(
            unit_gradients(module(seed=seed), WIDTH), Clip(0.05, 1.0), mechanism=mechanism,
            expected_batch=1.0, per_layer=per_layer, random=Randomness(),
        )  # fmt: skip
        assert 0.9 * 64 * 0.05 < float(mean.clipped_sum(same).norm(NORMS[mechanism])) <= 64 * 0.05


def test_group_normalisation_mixes_no_rows_and_batch_normalisation_is_refused():
    model = module()
    assert any(isinstance(layer, nn.GroupNorm) for layer in model.modules())
    refuse_mixing_layers(model)
    model.image[2] = nn.BatchNorm2d(8)
    with pytest.raises(UserError, match=r"'image\.2' \(BatchNorm2d\) computes statistics over the batch"):
        unit_gradients(model, WIDTH)


def test_scores_have_the_shape_of_the_rows_and_depend_on_features_and_on_every_channel():
    model, rows = module(), torch.rand(2, 3, WIDTH, generator=torch.Generator().manual_seed(1))
    assert isinstance(model, PileupCNN)
    with torch.no_grad():
        scores = model(rows)
        assert scores.shape == (2, 3)
        assert model(rows[0, 0]) == pytest.approx(float(scores[0, 0]), abs=1e-5)
        for channel in range(len(CHANNELS)):
            changed = rows.clone()
            changed[..., F:].unflatten(-1, SHAPE)[..., channel, 5:9, 20:30] += 1.0
            assert (model(changed) != scores).all()
        changed = rows.clone()
        changed[..., 1] += 1.0
        assert (model(changed) != scores).all()
        assert torch.isfinite(model(torch.zeros(1, WIDTH))).all()  # no reads


def test_a_model_scores_alike_in_slices_and_refuses_rows_without_images(monkeypatch):
    names = tuple("abc")
    rows = np.random.default_rng(0).random((7, WIDTH), dtype=np.float32)
    source = np.random.default_rng(1)
    parameters = {
        n: source.normal(size=v.shape).astype(np.float32) for n, v in initial_parameters(CNN, F).items()
    }
    model = Model(CNN, names, parameters)
    whole = model.score(rows)
    assert whole.shape == (7,)
    monkeypatch.setattr("cordon.model.architectures.MOST_NUMBERS", 2 * WIDTH)
    assert model.score(rows) == pytest.approx(whole, abs=1e-5)
    assert model.score(rows[:0]).shape == (0,)
    with pytest.raises(UserError, match="rows of 3 numbers are no inputs of pileup_cnn"):
        model.score(rows[:, :3])


def signal(rows, seed=0):
    """Images uint8 [rows, SIZE] whose only difference is how many reads support the allele; and labels."""
    source = np.random.default_rng(seed)
    labels = source.integers(0, 2, rows)
    images = np.zeros((rows, *SHAPE), dtype=np.uint8)
    images[:, :, :20] = source.integers(60, 200, (rows, len(CHANNELS), 20, SHAPE[2]))
    images[:, CHANNELS.index("support"), :20] = 120
    for image, label in zip(images, labels, strict=True):
        image[CHANNELS.index("support"), : 10 if label else 2] = 240
    return images.reshape(rows, SIZE), labels


def table(images, labels):
    rows = [
        table_row(patient=f"p{n}", position=n + 1, label=int(label), pileup=image.tobytes())
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=for_model(LABELLED, CNN))


def log_loss(parameters, units):
    model = build(CNN, units.features.shape[1] - SIZE)
    load_parameters(model, parameters)
    with torch.no_grad():
        scores = model(torch.from_numpy(units.features[np.arange(len(units.labels))]))
    return float(nn.functional.binary_cross_entropy_with_logits(scores, torch.from_numpy(units.labels)))


@pytest.mark.stress
def test_private_training_learns_what_only_the_images_show(tmp_path):
    write_table(table(*signal(200)), tmp_path / "a.parquet")
    units = Units.read([tmp_path / "a.parquet"], unit="patient", architecture=CNN)
    assert units.features.shape == (200, len(FEATURES) + SIZE)
    given = inputs(read_table(tmp_path / "a.parquet", for_model(LABELLED, CNN)), CNN)
    held = units.features[np.arange(200)]
    assert sorted(row.tobytes() for row in held) == sorted(row.tobytes() for row in given)
    start = initial_parameters(CNN, len(FEATURES))
    settings = DPSGD(
        noise_multiplier=0.3, sampling_rate=0.4, steps=60, clip_norm=1.0, learning_rate=0.01,
        expected_batch=80.0, max_variants=1, optimiser="adam",
    )  # fmt: skip
    update = train(CNN, start, units, settings).update
    assert {name: value.shape for name, value in update.items()} == {n: v.shape for n, v in start.items()}
    after = {name: start[name] + update[name] for name in start}
    assert log_loss(after, units) < min(0.6, log_loss(start, units) - 0.1)


def test_the_images_of_a_patients_rows_stay_beside_them_and_on_disk(tmp_path):
    images = np.arange(6, dtype=np.uint8)[:, None].repeat(SIZE, axis=1)
    rows = [
        table_row(patient=patient, position=n, label=label, f_depth=float(n), pileup=image.tobytes())
        for n, (patient, label, image) in enumerate(zip("bababa", [1, 0, None, 1, 0, 1], images, strict=True))
    ]
    for name, part in (("1", rows[:2]), ("2", rows[2:])):
        write_table(pa.Table.from_pylist(part, schema=for_model(LABELLED, CNN)), tmp_path / f"{name}.parquet")
    units = Units.read([tmp_path / "1.parquet", tmp_path / "2.parquet"], unit="patient", architecture=CNN)
    assert not units.features.images.flags.writeable  # the file's own pages
    assert units.offsets.tolist() == [0, 3, 5]
    drawn = units.features[np.array([[0, 1], [2, 3]])]
    assert drawn.shape == (2, 2, len(FEATURES) + SIZE)
    assert drawn[..., FEATURES.index("f_depth")].tolist() == [[1, 3], [5, 0]]
    assert drawn[..., -1] == pytest.approx(np.array([[1, 3], [5, 0]]) / 255)


def test_tables_without_images_cannot_be_trained_on(tmp_path):
    write_table(pa.Table.from_pylist([table_row(label=1)], schema=LABELLED), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*encode the variants with --pileups"):
        Units.read([tmp_path / "a.parquet"], unit="patient", architecture=CNN)
    units = Units.read([tmp_path / "a.parquet"], unit="patient")
    with pytest.raises(UserError, match="no inputs of pileup_cnn"):
        train(CNN, initial_parameters(CNN, 3), units, DPSGD(1.0, 0.5, 1, 1.0, 1.0, 1.0, 1))


@pytest.mark.stress
def test_a_public_start_a_calibration_and_scores_come_of_tables_with_images(tmp_path, monkeypatch):
    monkeypatch.setattr("cordon.training.pretrain.FIT_STEPS", 100)
    for name, seed in (("public", 0), ("own", 1)):
        write_table(table(*signal(100, seed)), tmp_path / f"{name}.parquet")
    model = pretrain([tmp_path / "public.parquet"], CNN)
    own = read_table(tmp_path / "own.parquet", for_model(LABELLED, CNN))
    calibration = calibrate(Alleles.of(model, [own]), "a")
    assert (calibration.mode, calibration.site, calibration.fitted) == ("site", "a", True)
    scored = pa.concat_tables(Scoring(model, calibration, "0.9").batches(tmp_path / "own.parquet"))
    assert PILEUP.name not in scored.schema.names
    right = (scored["cordon"].to_numpy() > 0) == (scored["label"].to_numpy() == 1)
    assert right.mean() > 0.9
    write_table(own.select(VARIANTS.names), tmp_path / "bare.parquet")
    with pytest.raises(UserError, match=r"bare\.parquet.*encode the variants with --pileups"):
        next(Scoring(model, uncalibrated("none", "a"), "0.9").batches(tmp_path / "bare.parquet"))


def test_public_rows_are_fitted_alike_in_slices(monkeypatch):
    monkeypatch.setattr("cordon.training.pretrain.FIT_STEPS", 3)
    images, labels = signal(12)
    rows = np.concatenate([np.ones((12, F), np.float32), images / np.float32(255)], axis=1)
    whole = fit(CNN, rows, labels.astype(np.float32))
    monkeypatch.setattr("cordon.model.architectures.MOST_NUMBERS", 5 * WIDTH)
    sliced = fit(CNN, rows, labels.astype(np.float32))
    for name, value in whole.items():
        assert sliced[name] == pytest.approx(value, abs=1e-3)
