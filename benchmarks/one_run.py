#!/usr/bin/env python3
"""How much of a known epsilon the lower bounds show, and how often they show more.

    python benchmarks/one_run.py

First the one-run estimator on mechanisms of known epsilon, canaries each in a coordinate of its own: a bound
that exceeds epsilon more often than its confidence allows is wrong. Then real runs with canaries, on made
rows, and real steps, against the epsilon that their plan claims.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from scipy.optimize import brentq

from cordon.auditing.canaries import RUN_VIEWS, audit_one_run
from cordon.auditing.one_run import APPROXIMATE, GAUSSIAN_CURVE, epsilon_of, lower_bound
from cordon.auditing.step_bound import audit_step
from cordon.federation.plan import Plan
from cordon.model.initial_weights import initial_parameters
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.privacy.guarantee import ADJACENCY, Guarantee
from cordon.training.units import Units

DELTA, FEATURES, PATIENTS, ROWS = 1e-5, 30, 50, 20
# The noise by name: draws of scale 1, the scale for an epsilon, its delta and the estimators that hold.
NOISES: dict[str, tuple[str, Callable[[float], float], float, tuple[str, ...]]] = {
    "Gaussian": ("normal", lambda epsilon: gaussian_scale(epsilon), DELTA, (APPROXIMATE, GAUSSIAN_CURVE)),
    "Laplace": ("laplace", lambda epsilon: 1.0 / epsilon, 0.0, (APPROXIMATE,)),
}
KNOWN = (("Gaussian", 1.0), ("Gaussian", 4.0), ("Gaussian", 8.0), ("Laplace", 1.0), ("Laplace", 4.0))


@dataclass(frozen=True)
class Row:
    """The bounds of repeated audits of one thing, beside its epsilon; ``allowed`` may exceed it by chance."""

    audited: str
    estimator: str
    unit: str
    mechanism: str
    delta: float
    epsilon: float
    median: float
    exceeding: float
    allowed: float
    repeats: int


def gaussian_scale(epsilon: float) -> float:
    """The deviation, over the sensitivity, of the Gaussian mechanism of this epsilon at DELTA."""
    return 1.0 / float(brentq(lambda mu: epsilon_of(mu, DELTA) - epsilon, 0.01, 10.0))


def known(
    noise: str, epsilon: float, *, repeats: int, canaries: int, guesses: tuple[int, ...] | None,
    confidence: float = 0.95, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The bounds [repeats] by estimator: canaries of 1, each in a coordinate of its own, under the noise."""
    draws, scale, delta, estimators = NOISES[noise]
    source = np.random.default_rng(seed)
    bounds: dict[str, list[float]] = {estimator: [] for estimator in estimators}
    for _ in range(repeats):
        included = source.random(canaries) < 0.5
        scores = getattr(source, draws)(0.0, scale(epsilon), canaries) + included
        for estimator, found in bounds.items():
            bound = lower_bound(
                scores, included, delta=delta, confidence=confidence, estimator=estimator, guesses=guesses
            )
            found.append(bound.epsilon_lower)
    return {estimator: np.array(found) for estimator, found in bounds.items()}


def made_units(unit: str) -> Units:
    """Patients of equally many rows, whose label follows the first feature."""
    source = np.random.default_rng(0)
    features = source.normal(size=(PATIENTS * ROWS, FEATURES)).astype(np.float32)
    labels = (features[:, 0] + source.normal(size=len(features)) > 0).astype(np.float32)
    owners = [f"patient {row // ROWS}" for row in range(len(features))]
    return Units.group(features, labels, owners, unit=unit)


def demo_plan(epsilon: float, unit: str, mechanism: str) -> Plan:
    """The pipeline's default settings but for these."""
    return Plan.calibrated(
        model="mlp", unit=unit, epsilon=epsilon, delta=DELTA, rounds=10, local_steps=10, sampling_rate=0.5,
        clip_norm=0.05, learning_rate=2.0, max_variants_per_patient=256, averaged_rounds=5,
        mechanism=mechanism,
    )  # fmt: skip


def runs(epsilon: float, canaries: int, repeats: int) -> Iterator[Row]:
    """Real runs by view, and real steps."""
    for unit in ("patient", "variant"):
        plan = demo_plan(epsilon, unit, GAUSSIAN)
        units, start = made_units(unit), initial_parameters(plan.model, FEATURES)
        for view in RUN_VIEWS:
            estimators = (APPROXIMATE, GAUSSIAN_CURVE) if view == "white-box" else (APPROXIMATE,)
            for estimator in estimators:
                found = [
                    audit_one_run(
                        plan, units, PATIENTS, start, canaries=canaries, view=view, seed=seed,
                        estimator=estimator,
                    ).epsilon_lower
                    for seed in range(repeats)
                ]  # fmt: skip
                yield row(f"run, {view}, {canaries} canaries", estimator, plan, np.array(found), 0.05)
        for mechanism in (GAUSSIAN, LAPLACE):
            plan = demo_plan(epsilon, unit, mechanism)
            found = [audit_step(plan, features=FEATURES).epsilon_lower for _ in range(repeats)]
            yield row("steps", "family of the noise", plan, np.array(found), 0.001)


def row(audited: str, estimator: str, plan: Plan, found: np.ndarray, allowed: float) -> Row:
    return Row(
        audited, estimator, plan.unit, plan.mechanism, plan.delta, plan.epsilon, float(np.median(found)),
        float((found > plan.epsilon).mean()), allowed, len(found),
    )  # fmt: skip


@click.command()
@click.option("--repeats", default=200, show_default=True, help="Audits of each known mechanism; 0: none.")
@click.option("--canaries", default=100_000, show_default=True, help="Canaries in each of these.")
@click.option("--guesses", default=1000, show_default=True, help="Guesses about them; 0: a grid, corrected.")
@click.option("--run_repeats", default=5, show_default=True, help="Real runs and audits of steps; 0: none.")
@click.option("--run_canaries", default=3000, show_default=True, help="Canaries in a real run.")
@click.option("--run_epsilon", default=4.0, show_default=True, help="Epsilon of the real runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(
    repeats: int, canaries: int, guesses: int, run_repeats: int, run_canaries: int, run_epsilon: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Print mechanism, epsilon, median bound and the share of bounds that exceed it."""
    rows: list[dict[str, Any]] = []

    def add(found: Row) -> None:
        rows.append(found.__dict__ | {"adjacency": ADJACENCY})
        if not as_json:
            spent = Guarantee(found.unit, found.delta, found.mechanism).statement(found.epsilon)
            click.echo(
                f"{found.audited}, {found.estimator}: median bound {found.median:.2f} of {spent}; "
                f"{found.exceeding:.1%} exceed it ({found.allowed:.1%} allowed, {found.repeats} audits)"
            )

    for noise, epsilon in KNOWN if repeats else ():
        bounds = known(
            noise, epsilon, repeats=repeats, canaries=canaries, guesses=(guesses,) if guesses else None
        )
        for estimator, found in bounds.items():
            median, exceeding = float(np.median(found)), float((found > epsilon).mean())
            delta = NOISES[noise][2]
            add(
                Row(
                    "coordinates",
                    estimator,
                    "canary",
                    noise,
                    delta,
                    epsilon,
                    median,
                    exceeding,
                    0.05,
                    repeats,
                )
            )
    if run_repeats:
        for measured in runs(run_epsilon, run_canaries, run_repeats):
            add(measured)
    if as_json:
        click.echo(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
