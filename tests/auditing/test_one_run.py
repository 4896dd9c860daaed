"""Tests of cordon.auditing.one_run: on mechanisms of known epsilon, and against exact probabilities."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import optimize, stats

from cordon.auditing.one_run import (
    APPROXIMATE,
    GAUSSIAN_CURVE,
    SHARES,
    epsilon_of,
    impossible,
    lower_bound,
    p_value,
)
from cordon.errors import UserError
from cordon.privacy.accountants import epsilon_pld
from cordon.privacy.events import Event
from cordon.privacy.guarantee import ADJACENCY
from one_run import KNOWN, gaussian_scale, known, main
from trials import trials

pytestmark = pytest.mark.statistical

REPEATS, CONFIDENCE, CHANCE = trials(200), 0.95, 1e-3
# A right estimator exceeds the true epsilon more often than so with a probability below CHANCE.
MOST_EXCEEDING = int(stats.binom.isf(CHANCE, REPEATS, 1 - CONFIDENCE))


def gaussian(mu):
    """What an event has at least without a canary, from its probability with it."""
    return lambda power: float(stats.norm.cdf(stats.norm.ppf(power) - mu))


# The median is at least this share of epsilon: more canaries than a run could hold, as noise is cheap here.
SHOWN = {("Gaussian", 1.0): 0.5, ("Gaussian", 4.0): 0.6, ("Laplace", 1.0): 0.75, ("Laplace", 4.0): 0.75}


@pytest.mark.parametrize(("noise", "epsilon"), KNOWN)
def test_the_known_epsilon_is_kept_to_and_most_of_it_is_shown(noise, epsilon):
    """REPEATS audits, the number of guesses fixed in advance; epsilon 4 gives 2.4 and more in the median."""
    bounds = known(noise, epsilon, repeats=REPEATS, canaries=100_000, guesses=(1000,))
    for found in bounds.values():
        assert (found > epsilon).sum() <= MOST_EXCEEDING
        assert np.median(found) >= SHOWN.get((noise, epsilon), 0.4) * epsilon
    if noise == "Gaussian":
        assert np.median(bounds[GAUSSIAN_CURVE]) > np.median(bounds[APPROXIMATE])


@pytest.mark.parametrize("noise", ["Gaussian", "Laplace"])
def test_the_best_of_several_numbers_of_guesses_keeps_to_epsilon_too(noise):
    bounds = known(noise, 4.0, repeats=REPEATS, canaries=2000, guesses=None)
    for found in bounds.values():
        assert (found > 4.0).sum() <= MOST_EXCEEDING
        assert np.median(found) > 1.0


@pytest.mark.parametrize("confidence", [0.5, 0.8])
def test_at_low_confidence_the_bound_is_still_wrong_no_more_often_than_it_says(confidence):
    """Where a bound that is too bold would show at once."""
    most = stats.binom.isf(CHANCE, REPEATS, 1 - confidence)
    for noise in ("Gaussian", "Laplace"):
        bounds = known(
            noise, 2.0, repeats=REPEATS, canaries=500, guesses=(100,), confidence=confidence, seed=3
        )
        for found in bounds.values():
            assert (found > 2.0).sum() <= most


def test_scores_that_tell_nothing_show_nothing():
    source = np.random.default_rng(1)
    shown = [
        lower_bound(source.normal(size=400), source.random(400) < 0.5, delta=1e-5).epsilon_lower > 0
        for _ in range(REPEATS)
    ]
    assert sum(shown) <= MOST_EXCEEDING


def test_one_who_knows_every_coin_shows_as_much_as_so_many_coins_can():
    """All of m right has probability accuracy^m: at one number of guesses, log-odds of error^(1 / m)."""
    included = np.random.default_rng(0).random(300) < 0.5
    bound = lower_bound(included.astype(float), included, delta=0.0, guesses=(300,))
    accuracy = 0.05 ** (1 / 300)
    # Halves are guessed in and out, where the coins are not quite so: a few guesses are wrong.
    wrong = abs(int(included.sum()) - 150)
    assert bound.correct == 300 - wrong
    perfect = lower_bound(np.arange(300.0), np.arange(300) >= 150, delta=0.0, guesses=(300,))
    assert perfect.epsilon_lower == pytest.approx(math.log(accuracy / (1 - accuracy)), abs=1e-6)


def published(m, r, v, epsilon, delta):
    """The p-value as Steinke et al. wrote it, appendix D, term by term."""
    accuracy = 1 / (1 + math.exp(-epsilon))
    below = alpha = 0.0
    for i in range(1, v + 1):
        below += stats.binom.pmf(v - i, r, accuracy)
        alpha = max(alpha, below / i)
    return min(1.0, stats.binom.sf(v - 1, r, accuracy) + alpha * delta * 2 * m)


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_the_p_value_is_the_published_one(delta):
    for m, r, v, epsilon in ((10, 10, 9, 0.5), (1000, 100, 80, 1.0), (1000, 100, 0, 1.0), (50, 7, 7, 0.0)):
        assert p_value(m, r, v, epsilon, delta) == pytest.approx(published(m, r, v, epsilon, delta), rel=1e-9)


def test_delta_counts():
    """A mechanism that tells every coin with probability delta, and else nothing, is (0, delta)-DP."""
    for delta in (1e-3, 0.04):
        assert p_value(100, 100, 100, 0.0, delta) >= delta
    scores, included = np.arange(1000.0), np.arange(1000) >= 500
    shown = [lower_bound(scores, included, delta=delta).epsilon_lower for delta in (0.0, 1e-5, 1e-3)]
    assert shown[0] > shown[1] > shown[2]


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_what_a_gaussian_gives_is_not_impossible(mu):
    """Canaries in coordinates of their own, each guessed: the right ones are binomial."""
    for m in (3, 40):
        for correct in range(1, m + 1):
            probability = stats.binom.sf(correct - 1, m, stats.norm.cdf(mu / 2))
            assert not impossible(m, m, correct, probability * (1 - 1e-9), gaussian(mu))


@pytest.mark.parametrize(("canaries", "guesses"), [(2, 2), (3, 3), (5, 3)])
@pytest.mark.parametrize("correct", [1, 2])
def test_what_is_called_impossible_is_what_no_distribution_can_be(canaries, guesses, correct):
    """The largest probability of so many right guesses, by numerical optimisation of the inequalities."""
    mu = 0.8
    right = np.arange(guesses + 1) / canaries
    wrong = guesses / canaries - right

    def room(p):
        return [
            1 - stats.norm.cdf(stats.norm.ppf(1 - (wrong[c - 1 :] @ p[c - 1 :]).clip(1e-12, 1)) - mu)
            - right[c:] @ p[c:]
            for c in range(1, guesses + 1)
        ]  # fmt: skip

    best = optimize.minimize(
        lambda p: -p[correct:].sum(), np.full(guesses + 1, 1 / (guesses + 1)), method="SLSQP",
        bounds=[(0, 1)] * (guesses + 1),
        constraints=[{"type": "ineq", "fun": room}, {"type": "eq", "fun": lambda p: p.sum() - 1}],
        options={"ftol": 1e-12, "maxiter": 1000},
    )  # fmt: skip
    assert best.success
    largest = optimize.bisect(
        lambda t: impossible(canaries, guesses, correct, t, gaussian(mu)) - 0.5, 1e-6, 1 - 1e-9
    ) if impossible(canaries, guesses, correct, 1 - 1e-9, gaussian(mu)) else 1.0  # fmt: skip
    assert largest == pytest.approx(-best.fun, abs=1e-4)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 8.0])
def test_the_epsilon_of_mu_is_the_accountants(epsilon):
    scale = gaussian_scale(epsilon)
    assert epsilon_of(1 / scale, 1e-5) == pytest.approx(epsilon, rel=1e-9)
    assert epsilon_pld([Event(scale, 1.0, 1)], 1e-5) == pytest.approx(epsilon, rel=2e-3)
    assert epsilon_of(0.0, 1e-5) == epsilon_of(1e-6, 1e-5) == 0.0
    assert 1000 < epsilon_of(50.0, 1e-5) < 1500


def test_several_numbers_of_guesses_share_the_error():
    source = np.random.default_rng(2)
    included = source.random(1000) < 0.5
    scores = source.normal(size=1000) + 2 * included
    both = lower_bound(scores, included, delta=1e-5, guesses=(100, 300), confidence=0.9)
    alone = [lower_bound(scores, included, delta=1e-5, guesses=(k,), confidence=0.95) for k in (100, 300)]
    assert both.epsilon_lower == max(bound.epsilon_lower for bound in alone)
    assert (both.tried, alone[0].tried) == (2, 1)
    assert lower_bound(scores, included, delta=1e-5).tried == len(SHARES)


def test_guesses_come_from_scores_alone():
    """Coins told apart only by their place, or by nothing, are guessed by chance."""
    included = np.random.default_rng(3).random(1000) < 0.5
    correct = lower_bound(np.zeros(1000), included, delta=0.0, guesses=(1000,)).correct
    assert correct == int(included[500:].sum() + (~included[:500]).sum())
    mirrored = lower_bound(np.zeros(1000), ~included, delta=0.0, guesses=(1000,)).correct
    assert correct + mirrored == 1000


def test_a_result_says_everything_that_must_stand_beside_an_epsilon():
    scores, included = np.arange(100.0), np.arange(100) >= 50
    bound = lower_bound(scores, included, delta=1e-5, confidence=0.9, estimator=GAUSSIAN_CURVE)
    written = bound.to_dict()
    assert (written["delta"], written["confidence"], written["estimator"]) == (1e-5, 0.9, GAUSSIAN_CURVE)
    assert (written["unit"], written["adjacency"]) == ("canary", ADJACENCY)
    assert "mu-GDP" in written["assumptions"]
    assert not bound.exceeds  # nothing was claimed
    for word in ("at least epsilon", "unit: one canary", "delta 1e-05", ADJACENCY, "0.9", "mu-GDP"):
        assert word in bound.statement()
    shown = float(bound.statement().split()[3])
    assert shown <= bound.epsilon_lower < shown * 1.01


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": np.zeros(3)}, "belong together"),
        ({"included": np.zeros(4)}, "belong together"),
        ({"scores": np.zeros(0), "included": np.zeros(0, dtype=bool)}, "belong together"),
        ({"scores": np.array([0.0, 1.0, np.nan, 2.0])}, "not finite"),
        ({"delta": -0.1}, "no probability"),
        ({"confidence": 1.0}, "no probability"),
        ({"estimator": "best"}, "no estimator"),
        ({"estimator": GAUSSIAN_CURVE, "delta": 0.0}, "delta 0"),
        ({"guesses": (5,)}, "numbers of guesses"),
        ({"guesses": ()}, "numbers of guesses"),
    ],
)
def test_what_shows_nothing_is_refused(changes, said):
    given = {"scores": np.arange(4.0), "included": np.array([True, False, True, False]), "delta": 1e-5}
    given |= changes
    with pytest.raises(UserError, match=said):
        lower_bound(given.pop("scores"), given.pop("included"), **given)


def test_the_benchmark_prints_every_mechanism_with_its_epsilon():
    words = ["--repeats", "3", "--canaries", "500", "--guesses", "50", "--run_repeats", "0"]
    rows = json.loads(CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False).stdout)
    assert {(row["mechanism"], row["epsilon"]) for row in rows} == set(KNOWN)
    assert all(row["adjacency"] == ADJACENCY and row["unit"] == "canary" for row in rows)
    printed = CliRunner().invoke(main, words, catch_exceptions=False).stdout.splitlines()
    assert len(printed) == len(rows)
    assert all("adjacency" in line and "delta" in line for line in printed)
