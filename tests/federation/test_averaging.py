"""Tests of cordon.federation.averaging: the mean, and the rules that bear dishonest sites."""

from functools import partial
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium import random_updates
from cordon.errors import UserError
from cordon.federation.averaging import RULES, average, check_rule, combine, mean_of
from cordon.model.initial_weights import initial_parameters

START = initial_parameters("logistic", 3)


updates = partial(random_updates, START)


def test_the_average_is_weighted_by_what_sites_declared():
    one = {"w": np.array([1.0], np.float32)}
    four = {"w": np.array([4.0], np.float32)}
    start = {"w": np.array([10.0], np.float32)}
    moved = average(start, {"a": one, "b": four}, {"a": 2.0, "b": 1.0})
    assert moved["w"].tolist() == [12.0]
    assert moved["w"].dtype == np.float32
    assert start["w"].tolist() == [10.0]


def test_a_site_that_is_not_in_the_round_is_normalised_out():
    weights = {"h1": 1.0, "h2": 3.0, "h3": 96.0}
    two = average(START, updates(1, 2), weights)
    assert all(
        np.array_equal(two[n], average(START, updates(1, 2), {"h1": 10.0, "h2": 30.0})[n]) for n in two
    )
    alone = average(START, updates(1), weights)
    assert alone["0.bias"] == pytest.approx(START["0.bias"] + updates(1)["h1"]["0.bias"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(0.01, 100), min_size=4, max_size=4))
def test_the_order_of_the_sites_does_not_matter_to_the_last_bit(seed, values):
    sent = updates(seed, seed + 1, seed + 2, seed + 3)
    weights = dict(zip(sent, values, strict=True))
    expected = average(START, sent, weights)
    for order in permutations(sent):
        moved = average(START, {site: sent[site] for site in order}, weights)
        assert all(np.array_equal(moved[name], expected[name]) for name in START)


def test_the_order_of_updates_that_cancel_does_not_matter_either():
    sent = {"a": 1e25, "b": -1e25, "c": 3.0}
    moved = {
        float(
            average(
                {"w": np.zeros(1, np.float32)},
                {site: {"w": np.array([sent[site]], np.float32)} for site in order},
                dict.fromkeys(sent, 1.0),
            )["w"][0]
        )
        for order in permutations(sent)
    }
    assert len(moved) == 1


def test_no_update_at_all_leaves_the_model_as_it_was():
    assert all(np.array_equal(average(START, {}, {"h1": 1.0})[name], START[name]) for name in START)


ROBUST = [name for name in RULES if name != "mean"]


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("malicious", [1, 2])
@pytest.mark.stress
def test_a_robust_rule_bears_as_many_dishonest_sites_as_it_says(name, malicious):
    sites = updates(*range(RULES[name].least_sites(malicious)))
    for site in list(sites)[:malicious]:
        sites[site] = {key: np.full_like(value, 1e6) for key, value in START.items()}
    weights = dict.fromkeys(sites, 1.0)
    moved = combine(name, START, sites, weights, malicious=malicious)
    for key, value in moved.items():
        assert value.dtype == np.float32
        assert np.abs(value - START[key]).max() < 1.0
    pulled = combine("mean", START, sites, weights, malicious=malicious)
    assert all(np.abs(value).max() > 1e4 for value in pulled.values())
    last_first = dict(reversed(list(sites.items())))
    again = combine(name, START, last_first, weights, malicious=malicious)
    assert all(np.array_equal(again[key], moved[key]) for key in moved)


def test_what_the_rules_make_of_five_numbers():
    one = {f"h{n}": {"w": np.float32([value])} for n, value in enumerate([1.0, 2.0, 3.0, 4.0, 90.0])}
    start, weights = {"w": np.float32([10.0])}, dict.fromkeys(one, 1.0)
    made = {name: combine(name, start, one, weights, malicious=1)["w"].item() for name in
            ("mean", "median", "trimmed_mean")}  # fmt: skip
    assert made == {"mean": 30.0, "median": 13.0, "trimmed_mean": 13.0}


@pytest.mark.parametrize("name", ROBUST)
def test_too_few_sites_for_a_rule_are_refused_with_those_that_would_do(name):
    with pytest.raises(UserError, match=rf"{name} bears 2 .* among {RULES[name].least_sites(2)} or more"):
        check_rule(name, 2, RULES[name].least_sites(2) - 1)
    with pytest.raises(UserError, match="Use --aggregation mean or trimmed_mean or median, or a lower"):
        check_rule("bulyan", 1, 3)


def test_another_rule_is_refused_by_name():
    with pytest.raises(UserError, match="no aggregation is called 'best'"):
        check_rule("best", 0, 3)


def test_the_mean_of_models_is_plain_and_exact():
    models = [{"w": np.float32([value])} for value in (1.0, 2.0, 6.0)]
    assert mean_of(models)["w"].tolist() == [3.0]
    assert mean_of(models[:1])["w"].tolist() == [1.0]
