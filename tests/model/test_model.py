"""Tests of cordon.model.released."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from cordon.errors import UserError
from cordon.model.architectures import (
    ARCHITECTURES,
    PRIOR_LOG_ODDS,
    build,
    check_parameters,
    load_parameters,
    width,
)
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model, load

NAMES = ("f_a", "f_b", "f_c")
PRIVACY = {"unit": "patient", "epsilon": 7.9, "delta": 1e-5, "rounds": 10}


def trained(architecture="mlp", seed=0):
    source = np.random.default_rng(seed)
    start = initial_parameters(architecture, len(NAMES))
    parameters = {n: source.normal(size=v.shape).astype(np.float32) for n, v in start.items()}
    return Model(architecture, NAMES, parameters, PRIVACY)


@pytest.mark.parametrize("architecture", ["logistic", "mlp"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_dense_layers_score_without_torch_as_the_module_that_trains_does(architecture, scale):
    model = trained(architecture)
    rows = (scale * np.random.default_rng(1).normal(size=(500, 3))).astype(np.float32)
    module = build(architecture, 3)
    load_parameters(module, model.parameters)
    expected = module.double()(torch.from_numpy(rows).double()).detach().numpy()
    assert model.score(rows) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_comes_back_whole(tmp_path, architecture):
    model = trained(architecture)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert (again.architecture, again.features, again.privacy) == (architecture, NAMES, PRIVACY)
    assert again.hash == model.hash
    rows = np.random.default_rng(1).normal(size=(5, width(architecture, 3))).astype(np.float32)
    assert np.array_equal(again.score(rows), model.score(rows))
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_an_array_in_another_memory_order_is_saved_as_it_reads(tmp_path):
    model = trained()
    turned = {name: np.asfortranarray(value) for name, value in model.parameters.items()}
    other = Model(model.architecture, NAMES, turned, PRIVACY)
    assert other.hash == model.hash
    other.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").hash == model.hash


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_hash_changes_with_any_single_parameter(data):
    model = trained()
    name = data.draw(st.sampled_from(sorted(model.parameters)))
    changed = {key: value.copy() for key, value in model.parameters.items()}
    flat = changed[name].reshape(-1)
    place = data.draw(st.integers(0, flat.size - 1))
    flat[place] = np.nextafter(flat[place], np.float32(np.inf))
    assert Model("mlp", NAMES, changed).hash != model.hash


def test_the_hash_changes_with_the_features_and_not_with_the_statement():
    model = trained()
    assert Model("mlp", ("f_b", "f_a", "f_c"), model.parameters).hash != model.hash
    assert Model("mlp", NAMES, model.parameters, {}).hash == model.hash
    assert len(model.hash) == 64


def test_a_score_is_the_log_odds_of_a_logistic_model_by_hand():
    parameters = {
        "0.weight": np.array([[1.0, -2.0, 0.5]], dtype=np.float32),
        "0.bias": np.array([0.25], dtype=np.float32),
    }
    scores = Model("logistic", NAMES, parameters).score(np.array([[1, 1, 2], [0, 0, 0]], dtype=np.float32))
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.25, 0.25]
    scores = Model("logistic", NAMES, parameters).score(np.array([[3, 1, 0]], dtype=np.float32))
    assert scores.tolist() == [1.25]
    assert 1 / (1 + math.exp(-1.25)) == pytest.approx(0.777, abs=1e-3)  # and its probability


def test_the_mlp_is_tanh_between_two_layers_by_hand():
    model = trained("mlp")
    rows = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    p = model.parameters
    hidden = np.tanh(rows @ p["0.weight"].T + p["0.bias"])
    assert model.score(rows) == pytest.approx((hidden @ p["2.weight"].T + p["2.bias"])[:, 0], abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_start_is_public_the_same_for_all_and_scores_the_prior(architecture):
    import torch

    first = initial_parameters(architecture, 7)
    torch.manual_seed(5)
    second = initial_parameters(architecture, 7)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    names = tuple(f"f_{number}" for number in range(7))
    scores = Model(architecture, names, first).score(np.ones((3, width(architecture, 7)), dtype=np.float32))
    assert scores == pytest.approx(PRIOR_LOG_ODDS)
    if architecture == "mlp":  # hidden units that start alike would stay alike
        assert len(np.unique(first["0.weight"])) == first["0.weight"].size


def test_examples_do_not_mix():
    model = trained()
    rows = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
    alone = np.concatenate([model.score(rows[number : number + 1]) for number in range(6)])
    assert model.score(rows) == pytest.approx(alone, abs=1e-6)


def test_a_table_of_other_features_is_refused():
    with pytest.raises(UserError, match="takes 3 features, the table has 2"):
        trained().score(np.ones((4, 2), dtype=np.float32))


def written(path, *, parameters=None, metadata=None, **described):
    good = trained("logistic")
    words = {"architecture": "logistic", "features": NAMES, "privacy": {}} | described
    save_file(
        good.parameters | (parameters or {}),
        path,
        metadata={"cordon": json.dumps(words)} if metadata is None else metadata,
    )
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parameters": {"0.bias": np.array([np.nan], np.float32)}}, "NaN or infinity"),
        ({"parameters": {"0.bias": np.array([np.inf], np.float32)}}, "NaN or infinity"),
        ({"parameters": {"0.bias": np.zeros(1, np.float64)}}, "float64 instead of float32"),
        ({"parameters": {"0.bias": np.zeros(2, np.float32)}}, r"shape \(2,\) instead of \(1,\)"),
        ({"parameters": {"1.bias": np.zeros(1, np.float32)}}, "instead of"),
        ({"architecture": "transformer"}, "no model is called 'transformer'"),
        ({"architecture": "mlp"}, "instead of"),
        ({"features": ["f_a"]}, "instead of"),
        ({"features": 3}, "not iterable"),
        ({"privacy": "none"}, "privacy is no statement"),
        ({"metadata": {}}, "cordon"),
        ({"metadata": {"cordon": "{"}}, ""),
        ({"metadata": {"cordon": "[]"}}, ""),
    ],
)
def test_a_file_that_is_no_model_is_refused_and_named(tmp_path, changes, reason):
    path = written(tmp_path / "odd.safetensors", **changes)
    with pytest.raises(UserError, match=rf"(?s)odd\.safetensors: not a model written by Cordon.*{reason}"):
        load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "garbage.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"garbage\.safetensors"):
        load(path)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400))
def test_a_truncated_model_is_refused(tmp_path_factory, size):
    path = written(tmp_path_factory.getbasetemp() / "cut.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: min(size, len(content) - 1)])
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        load(path)


def test_parameters_are_checked_by_name_shape_dtype_and_value():
    expected = initial_parameters("logistic", 3)
    check_parameters(expected, expected=expected)
    for wrong, reason in (
        ({}, "parameters"),
        (expected | {"extra": np.zeros(1, np.float32)}, "extra"),
        (expected | {"0.weight": np.zeros((3, 1), np.float32)}, "shape"),
        (expected | {"0.weight": np.zeros((1, 3), np.float16)}, "float16"),
        (expected | {"0.weight": np.full((1, 3), -np.inf, np.float32)}, "NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=reason):
            check_parameters(wrong, expected=expected)
